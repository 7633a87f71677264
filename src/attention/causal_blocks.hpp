// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace polysketch {

/// Weights between blocks of a causal matrix product (method.md §3; P §3.1, Figure 3): the rows of
/// a document are cut into blocks of `block`, and   N_i = sum over j in earlier blocks of i's
/// document of (a_i·b_j)^power·v_j,     z_i = the same sum without v_j,
/// computed through the states sum_j phi(b_j) [v_j, 1]ᵀ with phi(x) = x for power 1 and x ⊗ x for
/// power 2: linear in T. What lies inside a block is not part of it. Any T; the last block may be
/// short.
struct CausalBlocks {
  at::Tensor a, b;    ///< [B, H, T, R]: features of queries and keys
  at::Tensor v;       ///< [B, H, T, D]
  int64_t power = 2;  ///< 1 or 2
  int64_t block = 0;  ///< rows of a block; a document begins with one
  /// [B, T] int32 on the CPU, first position of a token's document; undefined: one document a row
  at::Tensor starts;
  at::Tensor
      /// [B, H, T] non-decreasing, fp32 (fp64), or undefined: key j then counts exp(log_scale_j −
      /// log_scale_i) for query i
      log_scale;
};

struct CausalBlocksResult {
  at::Tensor sum;      ///< N [B, H, T, D], fp32 (fp64 for fp64 inputs)
  at::Tensor row_sum;  ///< z [B, H, T], likewise; not below 0 for power 2
};

struct CausalBlocksGradients {
  at::Tensor a, b, v;  ///< shapes and types of the inputs
};

/// Documents of more than one block in row `row` of the batch: where they begin and how long they
/// are.
std::vector<std::pair<int64_t, int64_t>> long_documents(const CausalBlocks& call, int64_t row);

/// phi: x itself for power 1, x ⊗ x for power 2: [G, n, R] -> [G, n, R^power].
at::Tensor expand_features(const at::Tensor& x, int64_t power);

/// States are fp32 (fp64 for fp64 inputs). Features are expanded to R^power a few rows at a time.
/// CPU: heads over threads, the same bits for any number of threads. Nothing is kept for backward
/// but the inputs.
CausalBlocksResult causal_blocks_forward(const CausalBlocks& call);

/// Gradients for cotangents dN [B, H, T, D] and dz [B, H, T]; log_scale counts as constant.
CausalBlocksGradients causal_blocks_backward(const CausalBlocks& call,
                                             const at::Tensor& sum_gradient,
                                             const at::Tensor& row_sum_gradient);

}  // namespace polysketch
