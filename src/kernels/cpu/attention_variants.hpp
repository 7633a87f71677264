// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/causal_blocks.hpp"
#include "kernels/learned_sketch.hpp"
#include "kernels/polynomial_attention.hpp"

namespace polysketch::kernels {

// Each is null on other architectures. Calling a table's functions needs the instructions in its
// name. Those for bf16 rows take products in fp32 but for avx512bf16 and amx. Widths are multiples
// of 16, of 32 for amx.
const PolynomialKernels<float>* avx512_polynomial_float();
const PolynomialKernels<bf16>* avx512_polynomial_bf16();
const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16();
const PolynomialKernels<bf16>* amx_polynomial_bf16();

const CausalKernels<float>* avx512_causal_float();
const CausalKernels<bf16>* avx512_causal_bf16();
const CausalKernels<bf16>* avx512bf16_causal_bf16();
const CausalKernels<bf16>* amx_causal_bf16();

const LearnedSketchKernels<float>* avx512_learned_sketch_float();
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16();
const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16();
const LearnedSketchKernels<bf16>* amx_learned_sketch_bf16();

}  // namespace polysketch::kernels
