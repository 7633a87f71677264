// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attention/documents.hpp"
#include "attention/weight_rows.hpp"
#include "config/config.hpp"
#include "support/error.hpp"

namespace polysketch {

/// Tensors whose shapes, types or devices do not fit together: a defect of the caller, not of the
/// user.
class ShapeError : public InternalError {
 public:
  using InternalError::InternalError;
};

struct AttentionShape {
  int64_t heads = 0;       ///< H
  int64_t head_width = 0;  ///< D
};

/// Where the random matrices of a layer come from: a pure function of these two and of the step, so
/// nothing has to be saved.
struct AttentionDraw {
  uint64_t seed = 1;  ///< run.seed
  int64_t layer = 0;
};

/// A learned tensor of an attention layer. `value` shares its storage with the layer: an optimiser
/// that updates it in place, or a flat buffer put under it with set_data(), is seen by the next
/// forward.
struct AttentionParameter {
  std::string name;  ///< within the layer, e.g. "norm.gain"
  at::Tensor value;  ///< fp32 (fp64 in tests), requires_grad
};

/// Multiplications and additions, two for each fused pair. `full` counts all T x T pairs as many
/// published figures do; `causal` counts the T(T+1)/2 pairs that exist.
struct FlopCount {
  double full = 0;
  double causal = 0;
};

/// What one sequence costs in one layer, all heads together. Projections around the attention are
/// not included.
struct AttentionCost {
  FlopCount forward;
  FlopCount backward;  ///< of the gradients alone; recomputing weights adds one more score product
  int64_t saved_elements = 0;  ///< kept for backward in the type of q, k, v
  int64_t saved_floats = 0;    ///< kept for backward in fp32
  int64_t saved_bytes(int64_t bytes_per_element) const {
    return saved_elements * bytes_per_element + saved_floats * 4;
  }
};

/// What the recurrent form of a layer remembers of the tokens so far.
class AttentionState {
 public:
  virtual ~AttentionState() = default;
  /// of its tensors; constant but for the kinds that look at every pair
  virtual int64_t bytes() const = 0;
};

/// What becomes of the recurrent form of a mechanism as a text grows.
enum class Recurrence {
  none,      ///< there is none: weights depend on later tokens
  growing,   ///< the state keeps every key
  constant,  ///< state and time of a token stay what they are, so that a text may go on for ever
};

/// Causal attention of one layer. Heads share its parameters.
///
/// Implementations differ in the weight they give to a pair (query i, key j <= i), not in their
/// contract: rows of the result are convex combinations of the value rows up to i, except for the
/// "1 + row sum" kinds, which may give less than 1 in total.
class Attention {
 public:
  virtual ~Attention() = default;

  /// q, k, v: [B, H, T, D], after rotary embedding, any T >= 1; fp32, bf16 or fp64, all alike; any
  /// strides. documents: a query sees keys of its own document only.
  /// Returns [B, H, T, D], on the CPU laid out in memory as [B, T, H, D], so that joining the heads
  /// needs no copy. Differentiable once. Memory O(B·H·T·D) (method.md §3). Throws ShapeError if the
  /// shapes or types disagree.
  virtual at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Documents& documents = {}) = 0;

  /// FLOPs and bytes of forward and backward for one sequence of `length` tokens.
  virtual AttentionCost cost(int64_t length) const = 0;

  /// Learned tensors, always in the same order; empty for kinds without any. They stay in fp32
  /// whatever the type of q, k, v.
  virtual std::vector<AttentionParameter> parameters() { return {}; }

  /// Tensors that are drawn, not learned: sketch matrices, random features. They share their
  /// storage with the layer.
  virtual std::vector<AttentionParameter> constants() { return {}; }

  /// Called before the work of a training step, counted from 0: kinds that draw again every so many
  /// steps do it here.
  virtual void at_step(int64_t /*step*/) {}

  virtual Recurrence recurrence() const { return Recurrence::constant; }

  /// Recurrent form (method.md §3): the state before the first token. Throws UserError 78 where
  /// recurrence() is none.
  virtual std::unique_ptr<AttentionState> initial_state() const = 0;

  /// n >= 1 further tokens of every sequence, [B, H, n, D] after rotary embedding: what forward
  /// gives at these positions, [B, H, n, D], and `state` moved behind them. No gradients. B, type
  /// and device are those of the first call.
  virtual at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v) const = 0;

  /// Rows of the matrix of weights, for diagnostics: those of the queries q [B, H, n, D] at
  /// `positions` ([n] int64 on the CPU, ascending) of texts of one document with keys k [B, H, T,
  /// D], T beyond the last position. Norms, sketches and features are computed in fp32 (fp64 for
  /// fp64), their products in fp64, so they tell of the mechanism and not of its rounding. No
  /// gradients; n·T numbers a head.
  virtual WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                     const at::Tensor& positions) const = 0;

  /// One token: prefill with n = 1.
  at::Tensor step(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                  const at::Tensor& v) const;
};

/// The mechanism that the configuration names. `parameters` gives device and type (fp32, or fp64 in
/// tests) of the learned tensors. Throws UserError 78 for a degree that the kind does not know.
std::unique_ptr<Attention> make_attention(const AttentionConfig& config,
                                          const AttentionShape& shape,
                                          const at::TensorOptions& parameters = at::TensorOptions(),
                                          const AttentionDraw& draw = {});

/// Throws ShapeError unless q, k, v are [B, H, T, D] of the layer's H and D, alike in type and
/// device, and documents are [B, T].
void check_attention_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionShape& shape, const Documents& documents);

}  // namespace polysketch
