// SPDX-License-Identifier: Apache-2.0
// AVX2: rows.
#include "kernels/cpu/target.hpp"

#ifdef __x86_64__
POLYSKETCH_TARGET_BEGIN("avx2,fma,f16c")

namespace polysketch::kernels {
namespace {
#define POLYSKETCH_VECTOR_BYTES 32
#include "kernels/cpu/row_table.inl"
}  // namespace

const CpuKernels kAvx2{{}, {}, InstructionSet::avx2, false, &kRows};

}  // namespace polysketch::kernels

POLYSKETCH_TARGET_END
#endif
