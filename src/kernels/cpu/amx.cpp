// SPDX-License-Identifier: Apache-2.0
// Heads with products of bf16 numbers in the tiles of AMX, all else in AVX-512.
#include "kernels/cpu/target.hpp"

#ifdef __x86_64__
POLYSKETCH_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,amx-tile,amx-bf16" POLYSKETCH_WIDE)

namespace polysketch::kernels {
namespace {
#include "kernels/cpu/head_table.inl"
namespace heads {
#include "kernels/cpu/products_bf16.inl"
#include "kernels/cpu/products_tiles.inl"

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
}  // namespace heads
}  // namespace

const CpuKernels kAmx{{},
                      heads::Table<heads::TileProducts, bf16, 32, heads::WithTiles>::kernels,
                      InstructionSet::amx,
                      true,
                      nullptr};

}  // namespace polysketch::kernels

POLYSKETCH_TARGET_END
#endif
