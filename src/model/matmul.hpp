// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace polysketch {

// The matrix products of a dense layer y = x · Wᵀ, W: [out, in], x: [N, in]. On the CPU in fp32
// they go to oneDNN where it is the faster of the two libraries inside LibTorch (processors not
// made by Intel, whose MKL serves its own best); everything else is LibTorch's choice. Which
// library serves depends on the machine alone, so that a run is repeatable on it.

/// x [N, in] -> x · Wᵀ [N, out].
at::Tensor dense(const at::Tensor& x, const at::Tensor& weight);

/// dy [N, out] -> dy · W [N, in].
at::Tensor dense_backward(const at::Tensor& dy, const at::Tensor& weight);

/// gradient [out, in] (wide) += dyᵀ · x.
void add_dense_gradient(at::Tensor gradient, const at::Tensor& dy, const at::Tensor& x);

}  // namespace polysketch
