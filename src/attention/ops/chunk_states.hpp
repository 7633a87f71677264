// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "attention/documents.hpp"
#include "attention/ops/choice.hpp"

namespace polysketch::ops {

/// What queries see of earlier blocks (docs/method.md §3; P §3.1, Figure 3): the rows of a document
/// are cut into blocks of `block`, and
///   N_i = sum over j in earlier blocks of i's document of (a_i·b_j)^power·v_j,
///   z_i = the same sum without v_j,
/// computed through the states sum_j phi(b_j) [v_j, 1]ᵀ that pass from block to block, with
/// phi(x) = x for power 1 and x ⊗ x for power 2: linear in T. What lies inside a block is not part
/// of it. Any T; the last block may be short.
struct ChunkStatesCall {
  at::Tensor a, b;       ///< [B, H, T, R]: features of queries and keys
  at::Tensor v;          ///< [B, H, T, E]
  int64_t power = 2;     ///< 1 or 2
  int64_t block = 0;     ///< rows of a block; a document begins with one
  FirstKeys first_keys;  ///< where a token's document begins; undefined: one document a row
  /// [B, H, T] non-decreasing, fp32 (fp64), or undefined: key j then counts exp(log_scale_j −
  /// log_scale_i) for query i
  at::Tensor log_scale;
};

struct ChunkStatesResult {
  at::Tensor sum;      ///< N [B, H, T, E], fp32 (fp64 for fp64 inputs)
  at::Tensor row_sum;  ///< z [B, H, T], likewise; not below 0 for power 2
};

struct ChunkStatesGradients {
  at::Tensor a, b, v;  ///< shapes and types of the inputs
};

/// States are fp32 (fp64 for fp64 inputs). Nothing is kept for backward but the inputs.
ChunkStatesResult chunk_states_forward(const ChunkStatesCall& call);

/// Gradients for cotangents dN [B, H, T, E] and dz [B, H, T]; log_scale counts as constant.
ChunkStatesGradients chunk_states_backward(const ChunkStatesCall& call,
                                           const at::Tensor& sum_gradient,
                                           const at::Tensor& row_sum_gradient);

struct ChunkStatesImplementation : Implementation {
  bool (*fits)(const ChunkStatesCall& call);
  /// Results are zero where they are not written.
  void (*forward)(const ChunkStatesCall& call, const ChunkStatesResult& result);
  void (*backward)(const ChunkStatesCall& call, const at::Tensor& sum_gradient,
                   const at::Tensor& row_sum_gradient, const ChunkStatesGradients& back);
};

/// fp32 and bf16 on processors with AVX-512, power 2, R a multiple of 16 up to 128, E one up to
/// 256, no log-scale: the R(R + 1)/2 features that differ. Heads over threads, the same bits for
/// any number of them.
extern const ChunkStatesImplementation chunk_states_cpu;

/// LibTorch calls; features are expanded to R^power a few rows at a time.
extern const ChunkStatesImplementation chunk_states_aten;

/// Documents of more than one block in row `row` of the batch: where they begin and how long they
/// are.
std::vector<std::pair<int64_t, int64_t>> long_documents(const ChunkStatesCall& call, int64_t row);

/// phi: x itself for power 1, x ⊗ x for power 2: [G, n, R] -> [G, n, R^power].
at::Tensor expand_features(const at::Tensor& x, int64_t power);

}  // namespace polysketch::ops
