// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/causal_blocks.hpp"

namespace polysketch::kernels {

// Each is null on other architectures. Calling a table's functions needs the instructions in its name.
const CausalKernels<float>* avx512_causal_float();
const CausalKernels<bf16>* avx512_causal_bf16();      // bf16 rows, fp32 products
const CausalKernels<bf16>* avx512bf16_causal_bf16();  // bf16 products

}  // namespace polysketch::kernels
