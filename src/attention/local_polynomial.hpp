// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"
#include "attention/linear_attention.hpp"
#include "attention/norm.hpp"

namespace polysketch {

/// Exact polynomial attention inside blocks of `block` positions only (P App. J): w_ij =
/// (LN(q_i)·LN(k_j))^p where i and j lie in one block, o_i = sum_j w_ij v_j / (1 + sum_j w_ij). One
/// layer norm serves q, k and all heads.
class LocalPolynomialAttention : public Attention {
 public:
  /// Uses degree and block.
  LocalPolynomialAttention(const AttentionConfig& config, const AttentionShape& shape,
                           const at::TensorOptions& parameters);
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::vector<AttentionParameter> parameters() override { return norm_.parameters("norm."); }
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  LinearAttention call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;

  int64_t degree_, block_;
  AttentionShape shape_;
  HeadNorm norm_;
};

}  // namespace polysketch
