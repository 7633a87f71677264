// SPDX-License-Identifier: Apache-2.0
#include "attention/ops/sketch.hpp"

#include <ATen/ATen.h>

namespace polysketch::ops {
namespace {

const Choice<SketchImplementation> choice{"sketch", {&sketch_cpu, &sketch_aten}};

}  // namespace

at::Tensor sketch_forward(const SketchCall& call) { return choice(call).forward(call); }

SketchGradients sketch_backward(const SketchCall& call, const at::Tensor& gradient) {
  return choice(call).backward(call, gradient);
}

}  // namespace polysketch::ops
