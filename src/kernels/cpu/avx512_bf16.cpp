// SPDX-License-Identifier: Apache-2.0
// AVX-512 with AVX512-BF16: rows rounded by instructions, and heads with products of bf16 numbers.
#include "kernels/cpu/target.hpp"

#ifdef __x86_64__
POLYSKETCH_TARGET_BEGIN("avx512f,avx512bf16,avx512bw,avx512dq,avx512vl,avx2,fma" POLYSKETCH_WIDE)

namespace polysketch::kernels {
namespace {
#define POLYSKETCH_BF16_INSTRUCTIONS
#define POLYSKETCH_VECTOR_BYTES 64
#include "kernels/cpu/row_table.inl"

#include "kernels/cpu/head_table.inl"
namespace heads {
#include "kernels/cpu/products_bf16.inl"
}  // namespace heads
}  // namespace

const CpuKernels kAvx512Bf16{{},
                             heads::Table<heads::Bf16Products, bf16, 16, heads::Plain>::kernels,
                             InstructionSet::avx512,
                             true,
                             &kRows};

}  // namespace polysketch::kernels

POLYSKETCH_TARGET_END
#endif
