// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 reports its own intrinsics' deliberately undefined registers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

#include "kernels/cpu/polynomial_attention_variants.hpp"

#ifdef __x86_64__
// Headers come before this line: inline functions of theirs must not be compiled for an instruction set that a machine may lack.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,prefer-vector-width=512")
#endif

namespace polysketch::kernels {
namespace {

#include "kernels/cpu/polynomial_attention_rows.inl"
// clang-format off
#include "kernels/cpu/polynomial_attention_products.inl"
#include "kernels/cpu/polynomial_attention_forward.inl"
#include "kernels/cpu/polynomial_attention_backward.inl"
// clang-format on

struct Bf16Products {
  static constexpr int kUnit = 2;
  [[gnu::always_inline]] static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  /// 16 numbers that follow each other along the summed axis.
  static void store_along(Cell* p, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
  /// The number that a product sees.
  static __m512 rounded(__m512 x) {
    const __m256i half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  /// Numbers of kUnit rows that are summed over.
  static __m512i across(__m512 even, __m512 odd) {
    const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));  // 16 of the even row, then 16 of the odd one
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16);
    return _mm512_or_si512(low, high);
  }
};

constexpr PolynomialKernels<bf16> kTable{"avx512_bf16", forward_bytes<Bf16Products>, backward_bytes<Bf16Products>,
                                         forward_head<Bf16Products, bf16>, backward_head<Bf16Products, bf16>};

}  // namespace

const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16() { return &kTable; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
