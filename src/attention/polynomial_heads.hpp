// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/polynomial_call.hpp"

namespace polysketch {

/// Whether this machine has kernels of its own for the call (kernels/cpu/polynomial_head.hpp):
/// fp32 or bf16 on the CPU, no tile wanted.
bool has_head_kernels(const PolynomialCall& call);

/// Heads over threads. Scratch memory is linear in T for each thread.
PolynomialResult polynomial_heads_forward(const PolynomialCall& call);
PolynomialGradients polynomial_heads_backward(const PolynomialCall& call,
                                              const PolynomialResult& result,
                                              const at::Tensor& output_gradient);

}  // namespace polysketch
