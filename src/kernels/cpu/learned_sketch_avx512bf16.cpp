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

#include "kernels/cpu/learned_sketch_variants.hpp"

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
#include "kernels/cpu/learned_sketch_level.inl"
#include "kernels/cpu/learned_sketch_passes.inl"
#include "kernels/cpu/products_bf16.inl"
// clang-format on

constexpr LearnedSketchKernels<bf16> kTable{"avx512_bf16",
                                            sketch_packed_bytes<Bf16Products>,
                                            sketch_pack<Bf16Products>,
                                            sketch_forward_bytes<Bf16Products>,
                                            sketch_backward_bytes<Bf16Products>,
                                            sketch_forward<Bf16Products, bf16>,
                                            sketch_backward<Bf16Products, bf16>};

}  // namespace

const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16() { return &kTable; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const LearnedSketchKernels<bf16>* avx512bf16_learned_sketch_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
