// SPDX-License-Identifier: Apache-2.0
// Attention kernels for AVX-512, products in fp32.
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

#include "kernels/cpu/attention_variants.hpp"

#ifdef __x86_64__
// Headers come before this line: inline functions of theirs must not be compiled for an instruction
// set that a machine may lack.
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

namespace polysketch::kernels {
namespace {

#include "kernels/cpu/attention_rows.inl"
// clang-format off
#include "kernels/cpu/attention_products.inl"
#include "kernels/cpu/polynomial_attention_forward.inl"
#include "kernels/cpu/polynomial_attention_backward.inl"
#include "kernels/cpu/causal_blocks_state.inl"
#include "kernels/cpu/causal_blocks_passes.inl"
#include "kernels/cpu/learned_sketch_level.inl"
#include "kernels/cpu/learned_sketch_passes.inl"
#include "kernels/cpu/products_fp32.inl"
// clang-format on

template <class T>
constexpr PolynomialKernels<T> kPolynomial{
    "avx512, fp32 products", forward_bytes<Fp32Products>, backward_bytes<Fp32Products>,
    forward_head<Fp32Products, T>, backward_head<Fp32Products, T>};
template <class T>
constexpr CausalKernels<T> kCausal{"avx512, fp32 products", causal_forward_bytes<Fp32Products>,
                                   causal_backward_bytes<Fp32Products>,
                                   causal_forward<Fp32Products, T>,
                                   causal_backward<Fp32Products, T>};
template <class T>
constexpr LearnedSketchKernels<T> kLearnedSketch{"avx512, fp32 products",
                                                 sketch_packed_bytes<Fp32Products>,
                                                 sketch_pack<Fp32Products>,
                                                 sketch_forward_bytes<Fp32Products>,
                                                 sketch_backward_bytes<Fp32Products>,
                                                 sketch_forward<Fp32Products, T>,
                                                 sketch_backward<Fp32Products, T>};

}  // namespace

const PolynomialKernels<float>* avx512_polynomial_float() { return &kPolynomial<float>; }
const PolynomialKernels<bf16>* avx512_polynomial_bf16() { return &kPolynomial<bf16>; }
const CausalKernels<float>* avx512_causal_float() { return &kCausal<float>; }
const CausalKernels<bf16>* avx512_causal_bf16() { return &kCausal<bf16>; }
const LearnedSketchKernels<float>* avx512_learned_sketch_float() { return &kLearnedSketch<float>; }
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16() { return &kLearnedSketch<bf16>; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const PolynomialKernels<float>* avx512_polynomial_float() { return nullptr; }
const PolynomialKernels<bf16>* avx512_polynomial_bf16() { return nullptr; }
const CausalKernels<float>* avx512_causal_float() { return nullptr; }
const CausalKernels<bf16>* avx512_causal_bf16() { return nullptr; }
const LearnedSketchKernels<float>* avx512_learned_sketch_float() { return nullptr; }
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
