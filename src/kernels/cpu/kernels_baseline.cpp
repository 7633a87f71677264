// SPDX-License-Identifier: Apache-2.0
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/cpu/scratch.hpp"
#include "kernels/kernels.hpp"

#define POLYSKETCH_ISA_NAMESPACE baseline
#define POLYSKETCH_VECTOR_BYTES 16
#include "kernels/cpu/all.inl"
