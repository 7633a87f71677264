// SPDX-License-Identifier: Apache-2.0
#include "kernels/polynomial_attention.hpp"

#include "kernels/cpu/polynomial_attention_variants.hpp"
#include "kernels/instruction_set.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLanes = 16;      // fp32 numbers of a register
constexpr int64_t kMaxWidth = 256;  // above it a tile no longer fits the second-level cache

bool fits(int64_t width) { return instruction_set() == InstructionSet::avx512 && width % kLanes == 0 && width <= kMaxWidth; }

bool has_bf16_products() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace

template <>
const PolynomialKernels<float>* polynomial_kernels<float>(int64_t width) {
  return fits(width) ? avx512_polynomial_float() : nullptr;
}

template <>
const PolynomialKernels<bf16>* polynomial_kernels<bf16>(int64_t width) {
  if (!fits(width)) return nullptr;
  return has_bf16_products() ? avx512bf16_polynomial_bf16() : avx512_polynomial_bf16();
}

}  // namespace polysketch::kernels
