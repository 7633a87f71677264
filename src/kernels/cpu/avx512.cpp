// SPDX-License-Identifier: Apache-2.0
// AVX-512: rows, and heads with products in fp32.
#include "kernels/cpu/target.hpp"

#ifdef __x86_64__
POLYSKETCH_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma" POLYSKETCH_WIDE)

namespace polysketch::kernels {
namespace {
#define POLYSKETCH_VECTOR_BYTES 64
#include "kernels/cpu/row_table.inl"

#include "kernels/cpu/head_table.inl"
namespace heads {
#include "kernels/cpu/products_fp32.inl"
template <class T>
using Fp32Table = Table<Fp32Products, T, 16, Plain>;
}  // namespace heads
}  // namespace

const CpuKernels kAvx512{heads::Fp32Table<float>::kernels, heads::Fp32Table<bf16>::kernels,
                         InstructionSet::avx512, false, &kRows};

}  // namespace polysketch::kernels

POLYSKETCH_TARGET_END
#endif
