// SPDX-License-Identifier: Apache-2.0
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/cpu/scratch.hpp"
#include "kernels/kernels.hpp"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define POLYSKETCH_ISA_NAMESPACE avx2
#define POLYSKETCH_VECTOR_BYTES 32
#include "kernels/cpu/all.inl"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
