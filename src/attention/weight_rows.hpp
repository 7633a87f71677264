// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace polysketch {

/// Some rows of the dense matrix of weights (method.md §2) that an attention stands for without
/// ever forming it: what diagnostics look at. One document a sequence, queries at `positions` of
/// it.
struct WeightRows {
  at::Tensor positions;  ///< [n] int64 on the CPU, ascending: where the queries stand
  at::Tensor weights;    ///< [B, H, n, T] fp64, before normalising; 0 for keys that are not seen
  at::Tensor divisor;    ///< [B, H, n] fp64: o_i = sum_j w_ij v_j / divisor_i

  /// [B, H, n] fp64, the largest score of each query, whatever scores are to the kind: q·k/√D where
  /// weights are exp(score), |score| where they are score^p. Undefined for kinds whose weights are
  /// products of features.
  at::Tensor largest_score;

  /// [B, H, n, T] fp64: (s(q_i)·s(k_j))² of the sketch and the (q'_i·k'_j)^p that it stands for,
  /// for every key that is seen, whichever of the two is the weight. Undefined for kinds without a
  /// sketch.
  at::Tensor sketched, exact;

  /// rows of a block where keys outside the query's own are seen in another way; 0: the kind has
  /// none
  int64_t block = 0;
};

/// [n, T] bool on the device of `like`: the keys up to each query.
at::Tensor seen_keys(const at::Tensor& positions, int64_t length, const at::Tensor& like);

/// [n, T] bool on the device of `like`: keys of the query's own block.
at::Tensor own_block(const at::Tensor& positions, int64_t length, int64_t block,
                     const at::Tensor& like);

/// a_i·b_j: [B, H, n, R] and [B, H, T, R] -> [B, H, n, T] in fp64.
at::Tensor dot_products(const at::Tensor& a, const at::Tensor& b);

/// Rows of the "1 + row sum" kinds from weights of any keys, those that `seen` [n, T] does not
/// allow still in them; scores are their degree-th roots.
WeightRows power_weight_rows(const at::Tensor& weights, int64_t degree, const at::Tensor& positions,
                             const at::Tensor& seen);

}  // namespace polysketch
