// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace polysketch {

struct BlockedForward {
  at::Tensor output;      ///< [B, H, T, D], type of q, in memory [B, T, H, D]
  at::Tensor normaliser;  ///< [B, H, T], 1 + row sum, fp32 (fp64 for fp64 inputs)
};

struct BlockedBackward {
  at::Tensor q, k, v;  ///< [B, H, T, D], type of the inputs
};

/// Polynomial attention with plain LibTorch calls, tile by tile, on any device: w_ij = (q_i·k_j)^degree for starts[i] <= j <= i.
/// Scores, row sums and outputs are fp32 for bf16 inputs. The largest tensor besides the outputs is [B·H, tile, tile].
/// starts: [B, T] int32 on the CPU, or undefined for one document; tile 0: chosen.
BlockedForward polynomial_blocks_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t degree,
                                         const at::Tensor& starts, int64_t tile);

BlockedBackward polynomial_blocks_backward(const at::Tensor& output_gradient, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           const BlockedForward& forward, int64_t degree, const at::Tensor& starts, int64_t tile);

}  // namespace polysketch
