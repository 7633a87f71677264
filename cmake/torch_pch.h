// SPDX-License-Identifier: Apache-2.0
// Precompiled once per library: LibTorch's tensor and autograd headers dominate the time of every file that includes them.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>
