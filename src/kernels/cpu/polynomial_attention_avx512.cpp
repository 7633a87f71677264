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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

namespace polysketch::kernels {
namespace {

#include "kernels/cpu/polynomial_attention_rows.inl"
// clang-format off
#include "kernels/cpu/polynomial_attention_products.inl"
#include "kernels/cpu/polynomial_attention_forward.inl"
#include "kernels/cpu/polynomial_attention_backward.inl"
// clang-format on

struct Fp32Products {
  static constexpr int kUnit = 1;
  [[gnu::always_inline]] static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  /// 16 numbers that follow each other along the summed axis.
  static void store_along(Cell* p, __m512 x) { _mm512_storeu_ps(p, x); }
  /// The number that a product sees.
  static __m512 rounded(__m512 x) { return x; }
  /// Numbers of kUnit rows that are summed over.
  static __m512i across(__m512 x, __m512) { return _mm512_castps_si512(x); }
};

template <class T>
constexpr PolynomialKernels<T> kTable{"avx512, fp32 products", forward_bytes<Fp32Products>, backward_bytes<Fp32Products>,
                                      forward_head<Fp32Products, T>, backward_head<Fp32Products, T>};

}  // namespace

const PolynomialKernels<float>* avx512_polynomial_float() { return &kTable<float>; }
const PolynomialKernels<bf16>* avx512_polynomial_bf16() { return &kTable<bf16>; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const PolynomialKernels<float>* avx512_polynomial_float() { return nullptr; }
const PolynomialKernels<bf16>* avx512_polynomial_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
