// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace polysketch::kernels {

/// A bfloat16 number as it lies in memory: the upper half of an fp32. Same layout as c10::BFloat16,
/// so pointers may be cast. Storage only: kernels convert, compute in fp32 and round to the nearest
/// even.
struct bf16 {
  uint16_t bits;
};
static_assert(sizeof(bf16) == 2);

/// What a kernel computes with, and the type of its parameters and statistics: fp32 for fp32 and
/// bf16 elements, fp64 for fp64.
template <class T>
using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;

inline float to_float(bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

/// Nearest even; a NaN stays a NaN.
inline bf16 to_bf16(float value) {
  const auto u = std::bit_cast<uint32_t>(value);
  if (value != value) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace polysketch::kernels
