// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_blocks.hpp"

#include "kernels/cpu/causal_blocks_variants.hpp"
#include "kernels/instruction_set.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLanes = 16;           // fp32 numbers of a register
constexpr int64_t kMaxWidth = 128;       // above it a state is larger than the caches of a core
constexpr int64_t kMaxValueWidth = 256;  // likewise

bool fits(int64_t width, int64_t value_width) {
  return instruction_set() == InstructionSet::avx512 && width > 0 && width % kLanes == 0 && width <= kMaxWidth && value_width > 0 &&
         value_width % kLanes == 0 && value_width <= kMaxValueWidth;
}

}  // namespace

template <>
const CausalKernels<float>* causal_kernels<float>(int64_t width, int64_t value_width) {
  return fits(width, value_width) ? avx512_causal_float() : nullptr;
}

template <>
const CausalKernels<bf16>* causal_kernels<bf16>(int64_t width, int64_t value_width) {
  if (!fits(width, value_width)) return nullptr;
  return bf16_instructions() ? avx512bf16_causal_bf16() : avx512_causal_bf16();
}

}  // namespace polysketch::kernels
