// SPDX-License-Identifier: Apache-2.0
#include "kernels/learned_sketch.hpp"

#include "kernels/cpu/learned_sketch_variants.hpp"
#include "kernels/instruction_set.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLanes = 16;      // fp32 numbers of a register
constexpr int64_t kMaxWidth = 256;  // above these the weights are larger than the caches of a core
constexpr int64_t kMaxSize = 128;

bool fits(int64_t width, int64_t size) {
  return instruction_set() == InstructionSet::avx512 && width > 0 && width % kLanes == 0 && width <= kMaxWidth && size > 0 &&
         size % kLanes == 0 && size <= kMaxSize;
}

}  // namespace

template <>
const LearnedSketchKernels<float>* learned_sketch_kernels<float>(int64_t width, int64_t size) {
  return fits(width, size) ? avx512_learned_sketch_float() : nullptr;
}

template <>
const LearnedSketchKernels<bf16>* learned_sketch_kernels<bf16>(int64_t width, int64_t size) {
  if (!fits(width, size)) return nullptr;
  return bf16_instructions() ? avx512bf16_learned_sketch_bf16() : avx512_learned_sketch_bf16();
}

}  // namespace polysketch::kernels
