// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace polysketch::kernels {

/// What the kernels were compiled for, the later the more. All are in the program; one is chosen at
/// run time.
enum class InstructionSet {
  baseline,  ///< what every machine of the architecture has
  avx2,      ///< AVX2, FMA
  avx512,    ///< AVX-512 F, BW, DQ, VL
  amx,       ///< also AVX512-BF16, AMX-TILE, AMX-BF16
};

/// The one in use: the environment variable POLYSKETCH_ISA (baseline | avx2 | avx512 | amx) if set,
/// else the best of this machine. Throws UserError (config) at the first call if the variable names
/// another, or one that this machine lacks.
InstructionSet instruction_set();

bool is_supported(InstructionSet set);

/// Overrules the choice, for tests and benchmarks. Not while kernels run. Throws InternalError if
/// not supported.
void use_instruction_set(InstructionSet set);

/// Whether rounding to bf16 is left to AVX512-BF16, which turns results below 2⁻¹²⁶ into 0. True
/// where `avx512` or more is in use and the machine has it.
bool bf16_instructions();

/// Overrules that, for tests and benchmarks; `wanted` has no effect on a machine that has no such
/// instructions.
void use_bf16_instructions(bool wanted);

std::string_view name(InstructionSet set);

}  // namespace polysketch::kernels
