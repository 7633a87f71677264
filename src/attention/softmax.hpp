// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"

namespace polysketch {

/// o_i = sum_{j<=i} softmax_j(q_i·k_j / sqrt(D)) v_j, by the fastest attention that LibTorch has for device and type.
class SoftmaxAttention : public Attention {
 public:
  explicit SoftmaxAttention(const AttentionShape& shape) : shape_(shape) {}
  /// With documents: one call for each document, so that no T x T mask ever exists and no pair is computed in vain.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;

 private:
  AttentionShape shape_;
};

}  // namespace polysketch
