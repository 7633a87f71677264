// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "attention/attention.hpp"
#include "attention/linear_attention.hpp"

namespace polysketch {

/// Rows that arrive a few at a time, [B, H, n, W], in storage that doubles when it is full.
class GrowingRows {
 public:
  void append(const at::Tensor& rows);
  /// Keeps the last `count` rows only.
  void keep_last(int64_t count);
  at::Tensor rows() const { return store_.narrow(2, 0, count_); }
  int64_t count() const { return count_; }
  int64_t bytes() const { return store_.defined() ? static_cast<int64_t>(store_.nbytes()) : 0; }

 private:
  at::Tensor store_;
  int64_t count_ = 0;
};

/// Keys and values of all tokens so far, or of the last ones.
class KeyValueState : public AttentionState {
 public:
  GrowingRows keys, values;
  int64_t bytes() const override { return keys.bytes() + values.bytes(); }
};

/// What linear_attention remembers: per head the state Σ φ(b_j)[v_j, 1]ᵀ of the full blocks, and
/// the rows of the open one. Constant in the number of tokens unless the block is unbounded. fp32
/// (fp64 for fp64 inputs).
class LinearState : public AttentionState {
 public:
  GrowingRows b, k, v, log_scale;  ///< of the open block
  at::Tensor sums;                 ///< [B·H, features, E + 1]; undefined: no block is full yet
  at::Tensor sums_scale;           ///< [B·H, 1, 1] log-scale that `sums` is relative to
  at::Tensor largest;              ///< of a mechanism that keeps a running maximum
  int64_t bytes() const override;
};

/// linear_attention for the next n tokens: `call` holds their rows only, without document starts.
/// Returns [B, H, n, E].
at::Tensor linear_attention_next(LinearState& state, const LinearAttention& call);

}  // namespace polysketch
