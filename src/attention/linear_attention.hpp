// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "attention/documents.hpp"

namespace polysketch {

/// Longest block that is worth its time where weights are dot products of wide features inside and
/// outside of blocks alike, so that blocks change nothing but time: inside, a token costs half a
/// block of dot products of F numbers, outside F·(E + 1) whatever the block.
inline constexpr int64_t kFeatureBlock = 128;

/// Attention whose weights are, for keys j of earlier blocks, (a_i·b_j)^power, and inside a block
/// of `block` rows either the same or (q_i·k_j)^local_degree:   o_i = sum_j w_ij v_j /
/// (normaliser_offset + sum_j w_ij)   (method.md §2 and §3). All tensors [B, H, T, ·] of one type.
struct LinearAttention {
  at::Tensor a, b;               ///< [B, H, T, R]; undefined: nothing is seen outside the block
  at::Tensor q, k;               ///< [B, H, T, D]; undefined: inside the block as outside
  at::Tensor v;                  ///< [B, H, T, E]
  at::Tensor log_scale;          ///< [B, H, T], see ops::ChunkStatesCall, or undefined
  int64_t power = 2;             ///< 1 (dot products that are not negative) or 2
  int64_t local_degree = 4;      ///< even
  int64_t block = 1024;          ///< a document begins with one
  double normaliser_offset = 1;  ///< 1 or 0
  double divisor_floor = 0;      ///< divisors up to this get twice as much added
  Documents documents;
};

struct LinearAttentionResult {
  at::Tensor output;   ///< [B, H, T, E], in memory [B, T, H, E]
  at::Tensor divisor;  ///< [B, H, T], fp32 (fp64 for fp64 inputs)
};

/// Of the tensors that the call has, the others undefined. log_scale: where q and k are undefined.
struct LinearAttentionGradients {
  at::Tensor a, b, q, k, v, log_scale;
};

LinearAttentionResult linear_attention_forward(const LinearAttention& call);
LinearAttentionGradients linear_attention_backward(const LinearAttention& call,
                                                   const LinearAttentionResult& result,
                                                   const at::Tensor& output_gradient);

/// The same as a node of autograd. Returns [B, H, T, E], on the CPU laid out in memory as [B, T, H,
/// E]. Differentiable once with respect to a, b, q, k, v and log_scale (this where q and k are
/// undefined). Kept for backward: these, the result and the divisors. Time and memory are linear in
/// T.
at::Tensor linear_attention(const LinearAttention& call);

}  // namespace polysketch
