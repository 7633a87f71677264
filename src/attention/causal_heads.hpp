// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/causal_blocks.hpp"

namespace polysketch {

/// Whether this machine has kernels of its own for a call: on the CPU, power 2, fp32 or bf16, no
/// log-scale, widths that fit.
bool has_causal_kernels(const CausalBlocks& call);

/// As causal_blocks_forward and _backward, through these kernels, heads over threads. Results are
/// zero where nothing is written.
void causal_heads_forward(const CausalBlocks& call, const CausalBlocksResult& result);
void causal_heads_backward(const CausalBlocks& call, const at::Tensor& sum_gradient,
                           const at::Tensor& row_sum_gradient, const CausalBlocksGradients& back);

}  // namespace polysketch
