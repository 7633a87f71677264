// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"

namespace polysketch {

/// Cost of the mechanisms that look at every pair: scores and weighted sum forward (4·D FLOPs a
/// pair and head), twice as much for the gradients of q, k, v and the weights; q, k, v and the
/// output are kept.
inline AttentionCost pair_attention_cost(const AttentionShape& shape, int64_t length) {
  const double t = static_cast<double>(length);
  const double per_pair =
      4.0 * static_cast<double>(shape.heads) * static_cast<double>(shape.head_width);
  AttentionCost cost;
  cost.forward = {per_pair * t * t, per_pair * t * (t + 1) / 2};
  cost.backward = {2 * cost.forward.full, 2 * cost.forward.causal};
  cost.saved_elements = 4 * shape.heads * length * shape.head_width;
  return cost;
}

}  // namespace polysketch
