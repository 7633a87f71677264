// SPDX-License-Identifier: Apache-2.0
// What every machine of the architecture has.
#include "kernels/cpu/target.hpp"

namespace polysketch::kernels {
namespace {
#define POLYSKETCH_VECTOR_BYTES 16
#include "kernels/cpu/row_table.inl"
}  // namespace

const CpuKernels kBaseline{{}, {}, InstructionSet::baseline, false, &kRows};

}  // namespace polysketch::kernels
