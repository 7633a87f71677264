// SPDX-License-Identifier: Apache-2.0
// Attention kernels for AVX-512 with products of bf16 numbers.
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
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,prefer-vector-width=512")
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
#include "kernels/cpu/products_bf16.inl"
// clang-format on

constexpr PolynomialKernels<bf16> kPolynomial{
    "avx512_bf16", forward_bytes<Bf16Products>, backward_bytes<Bf16Products>,
    forward_head<Bf16Products, bf16>, backward_head<Bf16Products, bf16>};
constexpr CausalKernels<bf16> kCausal{
    "avx512_bf16", causal_forward_bytes<Bf16Products>, causal_backward_bytes<Bf16Products>,
    causal_forward<Bf16Products, bf16>, causal_backward<Bf16Products, bf16>};
constexpr LearnedSketchKernels<bf16> kLearnedSketch{"avx512_bf16",
                                                    sketch_packed_bytes<Bf16Products>,
                                                    sketch_pack<Bf16Products>,
                                                    sketch_forward_bytes<Bf16Products>,
                                                    sketch_backward_bytes<Bf16Products>,
                                                    sketch_forward<Bf16Products, bf16>,
                                                    sketch_backward<Bf16Products, bf16>};

}  // namespace

const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16() { return &kPolynomial; }
const CausalKernels<bf16>* avx512bf16_causal_bf16() { return &kCausal; }
const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16() { return &kLearnedSketch; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const PolynomialKernels<bf16>* avx512bf16_polynomial_bf16() { return nullptr; }
const CausalKernels<bf16>* avx512bf16_causal_bf16() { return nullptr; }
const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
