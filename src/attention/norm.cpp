// SPDX-License-Identifier: Apache-2.0
#include "attention/norm.hpp"

#include <ATen/ATen.h>

namespace polysketch {

HeadNorm::HeadNorm(int64_t width, const at::TensorOptions& options)
    : gain_(at::ones({width}, options).requires_grad_()), bias_(at::zeros({width}, options).requires_grad_()) {}

at::Tensor HeadNorm::operator()(const at::Tensor& x) const {
  // On the CPU LibTorch takes rows of one type and a gain of another; elsewhere it does not.
  const auto type = x.is_cpu() ? gain_.scalar_type() : x.scalar_type();
  return at::layer_norm(x, {x.size(-1)}, gain_.to(type), bias_.to(type), kEpsilon);
}

std::vector<AttentionParameter> HeadNorm::parameters(const std::string& prefix) const {
  return {{prefix + "gain", gain_}, {prefix + "bias", bias_}};
}

}  // namespace polysketch
