// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/learned_sketch.hpp"

namespace polysketch::kernels {

// Each is null on other architectures. Calling a table's functions needs the instructions in its name.
const LearnedSketchKernels<float>* avx512_learned_sketch_float();
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16();      // bf16 rows, fp32 products
const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16();  // bf16 products

}  // namespace polysketch::kernels
