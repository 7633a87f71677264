// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "attention/weight_rows.hpp"

namespace polysketch {

/// What rows of weights tell of the health of a layer. Where a kind has no such quantity there is
/// no number.
struct WeightFigures {
  /// ‖sketched − exact‖ / ‖exact‖ (Frobenius) over the rows and all keys that they see, inside and
  /// outside of blocks.
  std::optional<double> sketch_error;
  double smallest_normaliser =
      0;  ///< of the rows: what the weighted sum of the values is divided by
  std::optional<double> largest_score;  ///< of the rows
  /// Of the weights of a row, the share of those outside its block; mean over the rows that see
  /// such keys. Nothing if none does.
  std::optional<double> share_outside_block;
  /// exp(−Σ p ln p), p the singular values of the normalised rows [n, T] over their sum: how many
  /// rows differ, from 1 (all alike) to n. Mean over sequences and heads. NaN if a weight is not
  /// finite, 0 if all are 0.
  double effective_rank = 0;
};

WeightFigures weight_figures(const WeightRows& rows);

}  // namespace polysketch
