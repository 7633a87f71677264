// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "attention/attention.hpp"

namespace polysketch {

/// Layer norm over the width of a head, learned in the wide type, shared by all heads: ε = 1e-5,
/// biased variance (method.md §1).
class HeadNorm {
 public:
  static constexpr double kEpsilon = 1e-5;

  HeadNorm(int64_t width, const at::TensorOptions& options);

  /// [..., D] -> the same, in the type of x. Differentiable.
  at::Tensor operator()(const at::Tensor& x) const;

  const at::Tensor& gain() const { return gain_; }  ///< [D]
  const at::Tensor& bias() const { return bias_; }  ///< [D]

  /// "<prefix>gain" and "<prefix>bias".
  std::vector<AttentionParameter> parameters(const std::string& prefix) const;

 private:
  at::Tensor gain_, bias_;
};

}  // namespace polysketch
