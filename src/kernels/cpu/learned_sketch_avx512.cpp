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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

namespace polysketch::kernels {
namespace {

#include "kernels/cpu/polynomial_attention_rows.inl"
// clang-format off
#include "kernels/cpu/polynomial_attention_products.inl"
#include "kernels/cpu/learned_sketch_level.inl"
#include "kernels/cpu/learned_sketch_passes.inl"
#include "kernels/cpu/products_fp32.inl"
// clang-format on

template <class T>
constexpr LearnedSketchKernels<T> kTable{"avx512, fp32 products",
                                         sketch_packed_bytes<Fp32Products>,
                                         sketch_pack<Fp32Products>,
                                         sketch_forward_bytes<Fp32Products>,
                                         sketch_backward_bytes<Fp32Products>,
                                         sketch_forward<Fp32Products, T>,
                                         sketch_backward<Fp32Products, T>};

}  // namespace

const LearnedSketchKernels<float>* avx512_learned_sketch_float() { return &kTable<float>; }
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16() { return &kTable<bf16>; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const LearnedSketchKernels<float>* avx512_learned_sketch_float() { return nullptr; }
const LearnedSketchKernels<bf16>* avx512_learned_sketch_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
