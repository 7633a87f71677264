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
#include "kernels/cpu/products_fp32.inl"
// clang-format on

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
