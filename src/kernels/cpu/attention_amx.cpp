// SPDX-License-Identifier: Apache-2.0
// Attention kernels with products of bf16 numbers in the tiles of AMX, all else in AVX-512.
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
#pragma clang attribute push(                                                                 \
    __attribute__((                                                                           \
        target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,amx-tile,amx-bf16,prefer-vector-width=512")
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
#include "kernels/cpu/products_tiles.inl"
// clang-format on

/// `function`, with tiles at hand.
template <auto function>
struct WithTiles;
template <class... Arguments, void (*function)(Arguments...)>
struct WithTiles<function> {
  static void call(Arguments... arguments) {
    const TileScope tiles;
    function(arguments...);
  }
};

constexpr PolynomialKernels<bf16> kPolynomial{"amx", forward_bytes<TileProducts>,
                                              backward_bytes<TileProducts>,
                                              WithTiles<forward_head<TileProducts, bf16>>::call,
                                              WithTiles<backward_head<TileProducts, bf16>>::call};
constexpr CausalKernels<bf16> kCausal{"amx", causal_forward_bytes<TileProducts>,
                                      causal_backward_bytes<TileProducts>,
                                      WithTiles<causal_forward<TileProducts, bf16>>::call,
                                      WithTiles<causal_backward<TileProducts, bf16>>::call};
constexpr LearnedSketchKernels<bf16> kLearnedSketch{
    "amx",
    sketch_packed_bytes<TileProducts>,
    sketch_pack<TileProducts>,
    sketch_forward_bytes<TileProducts>,
    sketch_backward_bytes<TileProducts>,
    WithTiles<sketch_forward<TileProducts, bf16>>::call,
    WithTiles<sketch_backward<TileProducts, bf16>>::call};

}  // namespace

const PolynomialKernels<bf16>* amx_polynomial_bf16() { return &kPolynomial; }
const CausalKernels<bf16>* amx_causal_bf16() { return &kCausal; }
const LearnedSketchKernels<bf16>* amx_learned_sketch_bf16() { return &kLearnedSketch; }

}  // namespace polysketch::kernels

#ifdef __clang__
#pragma clang attribute pop
#endif
#else

namespace polysketch::kernels {
const PolynomialKernels<bf16>* amx_polynomial_bf16() { return nullptr; }
const CausalKernels<bf16>* amx_causal_bf16() { return nullptr; }
const LearnedSketchKernels<bf16>* amx_learned_sketch_bf16() { return nullptr; }
}  // namespace polysketch::kernels

#endif
