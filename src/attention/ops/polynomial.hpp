// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "attention/documents.hpp"
#include "attention/ops/choice.hpp"

namespace polysketch::ops {

/// Exact polynomial attention: w_ij = (q'_i·k'_j·key_scale)^degree for first_keys[i] <= j <= i,
/// where ' is the layer norm with gain and bias, or nothing if they are undefined;
/// o_i = sum_j w_ij v_j / (normaliser_offset + sum_j w_ij), 0 where the divisor is 0.
struct PolynomialCall {
  at::Tensor q, k;        ///< [B, H, T, D]
  at::Tensor v;           ///< [B, H, T, E]; E = D where there is a norm
  at::Tensor gain, bias;  ///< [D] or undefined
  double epsilon = 0;     ///< of the norm
  /// scalars, fp64, on the device of q; undefined: 1
  at::Tensor key_scale, normaliser_offset;
  int64_t degree = 0;  ///< even, or 1 for dot products that are not negative
  FirstKeys first_keys;
  /// [B, H, T] or undefined: weights times exp(log_scale_j − log_scale_i)
  at::Tensor log_scale;
  int64_t tile = 0;  ///< rows and columns of a tile of `aten`; 0: chosen, by any implementation
};

struct PolynomialResult {
  at::Tensor output;      ///< [B, H, T, E], type of v, in memory [B, T, H, E]
  at::Tensor normaliser;  ///< [B, H, T], normaliser_offset + row sum, fp32 (fp64 for fp64 inputs)
};

struct PolynomialGradients {
  at::Tensor q, k, v;     ///< shapes and types of the inputs
  at::Tensor gain, bias;  ///< [D], or undefined without them
};

PolynomialResult polynomial_forward(const PolynomialCall& call);

/// The weights are computed again. `result` may be that of a sum of which these weights are only a
/// part: o = N / c has the same gradients whatever else was added up in N and c.
PolynomialGradients polynomial_backward(const PolynomialCall& call, const PolynomialResult& result,
                                        const at::Tensor& output_gradient);

struct PolynomialImplementation : Implementation {
  bool (*fits)(const PolynomialCall& call);
  PolynomialResult (*forward)(const PolynomialCall& call);
  PolynomialGradients (*backward)(const PolynomialCall& call, const PolynomialResult& result,
                                  const at::Tensor& output_gradient);
};

/// fp32 and bf16 on processors with AVX-512, widths that are multiples of 16 up to 256, even
/// degrees, no log-scale. Heads over threads; scratch memory linear in T for each thread. The same
/// bits for any number of threads.
extern const PolynomialImplementation polynomial_cpu;

/// LibTorch calls, tile by tile, on any device and for any width, fp32, bf16 and fp64. Scores, row
/// sums and outputs are fp32 for bf16 inputs. The largest tensor besides inputs and outputs is
/// [B·H, tile, tile].
extern const PolynomialImplementation polynomial_aten;

}  // namespace polysketch::ops
