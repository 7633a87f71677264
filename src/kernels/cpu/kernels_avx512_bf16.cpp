// SPDX-License-Identifier: Apache-2.0
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/cpu/scratch.hpp"
#include "kernels/kernels.hpp"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512f,avx512bf16,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bf16,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define POLYSKETCH_ISA_NAMESPACE avx512_bf16
#define POLYSKETCH_BF16_INSTRUCTIONS
#define POLYSKETCH_VECTOR_BYTES 64
#include "kernels/cpu/all.inl"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
