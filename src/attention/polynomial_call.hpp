// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace polysketch {

/// What an implementation of polynomial attention gets: w_ij = (q'_i·k'_j·key_scale)^degree for
/// starts[i] <= j <= i, where ' is the layer norm with gain and bias, or nothing if they are
/// undefined; o_i = sum_j w_ij v_j / (one + sum_j w_ij), 0 where the divisor is 0.
struct PolynomialCall {
  at::Tensor q, k;            ///< [B, H, T, D]
  at::Tensor v;               ///< [B, H, T, E]; the processor's own kernels want E = D
  at::Tensor gain, bias;      ///< [D] or undefined
  at::Tensor key_scale, one;  ///< scalars, fp64; undefined: 1
  int64_t degree = 0;         ///< even, or 1 for dot products that are not negative
  at::Tensor starts;          ///< [B, T] int32 on the CPU, or undefined: one document a row
  int64_t tile = 0;           ///< rows and columns of a tile of the LibTorch version; 0: chosen
  double epsilon = 0;         ///< of the layer norm
  at::Tensor log_scale;  ///< [B, H, T] or undefined: weights times exp(log_scale_j − log_scale_i),
                         ///< LibTorch version only
};

struct PolynomialResult {
  at::Tensor output;      ///< [B, H, T, E], type of q, in memory [B, T, H, E]
  at::Tensor normaliser;  ///< [B, H, T], one + row sum, fp32 (fp64 for fp64 inputs)
};

struct PolynomialGradients {
  at::Tensor q, k, v;     ///< shapes and types of the inputs
  at::Tensor gain, bias;  ///< [D], or undefined without them
};

}  // namespace polysketch
