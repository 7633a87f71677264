// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/polynomial_call.hpp"

namespace polysketch {

/// Polynomial attention with plain LibTorch calls, tile by tile, on any device and for any width,
/// fp32, bf16 and fp64. Scores, row sums and outputs are fp32 for bf16 inputs. The largest tensor
/// besides inputs and outputs is [B·H, tile, tile].
PolynomialResult polynomial_blocks_forward(const PolynomialCall& call);
PolynomialGradients polynomial_blocks_backward(const PolynomialCall& call,
                                               const PolynomialResult& result,
                                               const at::Tensor& output_gradient);

}  // namespace polysketch
