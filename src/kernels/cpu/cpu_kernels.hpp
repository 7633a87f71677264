// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/chunk_states_head.hpp"
#include "kernels/cpu/instruction_set.hpp"
#include "kernels/cpu/polynomial_head.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/sketch_rows.hpp"

// All CPU kernels of one instruction set in one table. Every file of an instruction set fills one;
// cpu_kernels.cpp lists them in order of preference. What a table leaves out is taken from the next
// one in the list that the machine has.

namespace polysketch::kernels {

/// For rows of T. Null: none.
template <class T>
struct HeadKernels {
  const PolynomialKernels<T>* polynomial = nullptr;
  const ChunkStateKernels<T>* chunk_states = nullptr;
  const SketchKernels<T>* sketch = nullptr;
};

struct CpuKernels : HeadKernels<float>, HeadKernels<bf16> {
  InstructionSet set;
  bool bf16_instructions;  ///< uses AVX512-BF16
  const RowKernels* rows;  ///< null: those of the next table
};

extern const CpuKernels kBaseline;
#ifdef __x86_64__
extern const CpuKernels kAvx2, kAvx512, kAvx512Bf16, kAmx;
#endif

}  // namespace polysketch::kernels
