// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_variants.hpp"
#include "kernels/instruction_set.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLanes = 16;  // fp32 numbers of a register

bool fits(int64_t width, int64_t most) {
  return instruction_set() >= InstructionSet::avx512 && width > 0 && width % kLanes == 0 &&
         width <= most;
}

// Above these, what an implementation goes over again and again is larger than the caches of a
// core.
bool fits_polynomial(int64_t width) { return fits(width, 256); }
bool fits_causal(int64_t width, int64_t value_width) {
  return fits(width, 128) && fits(value_width, 256);
}
bool fits_sketch(int64_t width, int64_t size) { return fits(width, 256) && fits(size, 128); }

/// Whether products along these widths fill whole tiles.
bool fits_tiles(int64_t width) {
  return instruction_set() == InstructionSet::amx && width % (2 * kLanes) == 0;
}

}  // namespace

template <>
const PolynomialKernels<float>* polynomial_kernels<float>(int64_t width) {
  return fits_polynomial(width) ? avx512_polynomial_float() : nullptr;
}

template <>
const PolynomialKernels<bf16>* polynomial_kernels<bf16>(int64_t width) {
  if (!fits_polynomial(width)) return nullptr;
  if (fits_tiles(width)) return amx_polynomial_bf16();
  return bf16_instructions() ? avx512bf16_polynomial_bf16() : avx512_polynomial_bf16();
}

template <>
const CausalKernels<float>* causal_kernels<float>(int64_t width, int64_t value_width) {
  return fits_causal(width, value_width) ? avx512_causal_float() : nullptr;
}

template <>
const CausalKernels<bf16>* causal_kernels<bf16>(int64_t width, int64_t value_width) {
  if (!fits_causal(width, value_width)) return nullptr;
  if (fits_tiles(width)) return amx_causal_bf16();
  return bf16_instructions() ? avx512bf16_causal_bf16() : avx512_causal_bf16();
}

template <>
const LearnedSketchKernels<float>* learned_sketch_kernels<float>(int64_t width, int64_t size) {
  return fits_sketch(width, size) ? avx512_learned_sketch_float() : nullptr;
}

template <>
const LearnedSketchKernels<bf16>* learned_sketch_kernels<bf16>(int64_t width, int64_t size) {
  if (!fits_sketch(width, size)) return nullptr;
  if (fits_tiles(width) && fits_tiles(size)) return amx_learned_sketch_bf16();
  return bf16_instructions() ? avx512bf16_learned_sketch_bf16() : avx512_learned_sketch_bf16();
}

}  // namespace polysketch::kernels
