// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "attention/attention.hpp"
#include "attention/norm.hpp"

namespace polysketch {

/// Exact polynomial attention (P §2.1): w_ij = (LN(q_i)·LN(k_j))^p for j <= i, without any scale,
/// o_i = sum_j w_ij v_j / (1 + sum_j w_ij). One LayerNorm of width D serves q, k and all heads.
/// T² time, linear memory: weights exist in tiles only and are computed again in backward.
class PolynomialAttention : public Attention {
 public:
  /// degree: p, even, >= 2.
  PolynomialAttention(int64_t degree, const AttentionShape& shape,
                      const at::TensorOptions& parameters);
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::vector<AttentionParameter> parameters() override;
  Recurrence recurrence() const override { return Recurrence::growing; }
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  int64_t degree_;
  AttentionShape shape_;
  HeadNorm norm_;
};

struct PolynomialOptions {
  int64_t degree = 4;
  /// [D] of the layer norm on q and k; both or none: q and k as they are
  std::optional<at::Tensor> gain, bias;
  Documents documents;
  /// rows and columns of a tile of the LibTorch version; 0 chooses, and lets the processor's own
  /// kernels work
  int64_t tile = 0;
};

/// The function behind the class. q, k, v: [B, H, T, D].
at::Tensor polynomial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const PolynomialOptions& options);

}  // namespace polysketch
