// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"
#include "attention/linear_attention.hpp"

namespace polysketch {

/// Hedgehog (Zhang et al. 2024; P App. J): w_ij = φ(q_i)·φ(k_j), φ(x) = [softmax(Ax), softmax(−Ax)]
/// with a learned A [F/2, D] that heads, queries and keys share; o_i = sum_j w_ij v_j / sum_j w_ij.
/// Features exist for a few heads at a time.
class HedgehogAttention : public Attention {
 public:
  /// Uses features (F, even; 0: 2·D, the original) and block.
  HedgehogAttention(const AttentionConfig& config, const AttentionShape& shape,
                    const at::TensorOptions& parameters);
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::vector<AttentionParameter> parameters() override { return {{"features", features_}}; }
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  int64_t block_;
  AttentionShape shape_;
  at::Tensor features_;  ///< A [F/2, D]
};

}  // namespace polysketch
