// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"
#include "attention/linear_attention.hpp"

namespace polysketch {

/// Performer, FAVOR+ (Choromanski et al. 2020; method.md §2): w_ij = φ(q_i)·φ(k_j), φ(x) =
/// (exp(w·x/D^¼ − |x|²/(2√D) − m) + 1e-6)/√F over F rows w of orthogonal Gaussian blocks; o_i =
/// sum_j w_ij v_j / sum_j w_ij. m keeps the exponents small: for a query its largest one, for keys
///   paper:  the largest of the whole sequence, later keys included: not causal bit for bit, and
///   there is no recurrent form; causal: the largest up to the key, with what came before scaled
///   down accordingly.
/// Features exist for a few heads at a time.
class PerformerAttention : public Attention {
 public:
  /// Uses features (F; 0: 2048), stabiliser, redraw and block.
  PerformerAttention(const AttentionConfig& config, const AttentionShape& shape,
                     const at::TensorOptions& parameters, const AttentionDraw& draw);
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::vector<AttentionParameter> constants() override { return {{"projection", projection_}}; }
  void at_step(int64_t step) override;
  Recurrence recurrence() const override;
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  int64_t block_, redraw_, drawn_ = 0;
  Stabiliser stabiliser_;
  AttentionShape shape_;
  AttentionDraw draw_;
  at::Tensor projection_;  ///< [F, D]
};

/// F x D: rows of Gaussian orthogonal blocks of D with chi-distributed norms, fp64 on the CPU; the
/// same on every machine.
at::Tensor orthogonal_features(int64_t features, int64_t width, const AttentionDraw& draw,
                               int64_t number);

}  // namespace polysketch
