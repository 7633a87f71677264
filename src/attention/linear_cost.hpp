// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "attention/attention.hpp"

namespace polysketch {

/// What decides the cost of linear_attention.
struct LinearCost {
  int64_t width = 0;  ///< R of the vectors behind the weights between blocks; 0: there are none
  int64_t power = 2;  ///< 1 or 2
  int64_t near_width = 0;     ///< width of the vectors behind the weights inside a block
  int64_t block = 0;          ///< b
  double feature_flops = 0;   ///< to make all a and b of one head
  bool keep_features = true;  ///< whether a and b are kept for backward
};

/// One sequence, all heads (method.md §3). In the blocks 2·(W + D) FLOPs a pair, W the width of the
/// dot products; between them 2·F·(D + 1) to read and as much to write a token, F = R or R(R + 1)/2
/// features that differ; features for queries and keys. Gradients cost twice as much. `full` counts
/// whole blocks, `causal` the pairs of a block that exist.
inline AttentionCost linear_attention_cost(const LinearCost& kernel, const AttentionShape& shape,
                                           int64_t length) {
  const double t = static_cast<double>(length),
               b = static_cast<double>(std::min(kernel.block, length));
  const double d = static_cast<double>(shape.head_width), heads = static_cast<double>(shape.heads),
               r = static_cast<double>(kernel.width);
  const double blocks = static_cast<double>(length / std::min(kernel.block, length)),
               rest = t - blocks * b;
  const double per_pair = 2 * (static_cast<double>(kernel.near_width) + d);
  const double full = blocks * b * b + rest * rest,
               causal = blocks * b * (b + 1) / 2 + rest * (rest + 1) / 2;
  double linear = kernel.feature_flops;
  if (kernel.width > 0 && length > kernel.block)
    linear += 4 * t * (kernel.power == 2 ? r * (r + 1) / 2 : r) * (d + 1);
  AttentionCost cost;
  cost.forward = {heads * (per_pair * full + linear), heads * (per_pair * causal + linear)};
  cost.backward = {2 * cost.forward.full, 2 * cost.forward.causal};
  cost.saved_elements =
      shape.heads * length * (4 * shape.head_width + (kernel.keep_features ? 2 * kernel.width : 0));
  cost.saved_floats = shape.heads * length;  // divisors
  return cost;
}

}  // namespace polysketch
