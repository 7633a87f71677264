// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace polysketch::kernels {

/// What the kernels were compiled for. All are in the program; one is chosen at run time.
enum class InstructionSet {
  baseline,  ///< what every machine of the architecture has
  avx2,      ///< AVX2, FMA
  avx512,    ///< AVX-512 F, BW, DQ, VL
};

/// The one in use: the environment variable POLYSKETCH_ISA (baseline | avx2 | avx512) if set, else the best of this machine.
/// Throws UserError (config) at the first call if the variable names another, or one that this machine lacks.
InstructionSet instruction_set();

bool is_supported(InstructionSet set);

/// Overrules the choice, for tests and benchmarks. Not while kernels run. Throws InternalError if not supported.
void use_instruction_set(InstructionSet set);

std::string_view name(InstructionSet set);

}  // namespace polysketch::kernels
