// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "attention/attention.hpp"
#include "attention/linear_attention.hpp"
#include "attention/norm.hpp"
#include "attention/sketch.hpp"

namespace polysketch {

/// Sketched polynomial attention (P §2.2, §2.3, §3): w_ij = (s(q_i)·s(k_j))² with a sketch s: R^D
/// -> R^R, or, with local attention, inside the diagonal blocks (q'_i·k'_j)^p; o_i = sum_j w_ij v_j
/// / (1 + sum_j w_ij). T·(b·(R + D) + R²·D) time, linear memory.
///
/// Random sketches see q' and k' behind one layer norm, which the local part shares; learned ones
/// see q and k as they are, since every level brings its own norm, and the local part has a norm
/// for q and one for k (method.md §2).
class PolysketchAttention : public Attention {
 public:
  /// Uses degree (2 or another power of two), sketch, sketch_size, sketch_scale, local and block.
  PolysketchAttention(const AttentionConfig& config, const AttentionShape& shape,
                      const at::TensorOptions& parameters, const AttentionDraw& draw);
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::vector<AttentionParameter> parameters() override;
  std::vector<AttentionParameter> constants() override;
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  /// Rows of a text that need sketches.
  struct SketchedRows {
    int64_t first_query = 0, queries = 0;  ///< that see anything through them
    int64_t keys = 0;                      ///< from the first on, that are seen through them
  };
  /// Of one document of `length` tokens. Where blocks are exact, queries of the first one and keys
  /// of the last one have no use for a sketch.
  SketchedRows sketched_rows(int64_t length) const;

  /// What linear_attention wants.
  LinearAttention call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const SketchedRows& rows) const;

  AttentionConfig config_;
  AttentionShape shape_;
  std::unique_ptr<Sketch> sketch_;
  std::optional<HeadNorm> norm_;                   ///< of random sketches
  std::optional<HeadNorm> query_norm_, key_norm_;  ///< of the local part beside a learned sketch
};

}  // namespace polysketch
