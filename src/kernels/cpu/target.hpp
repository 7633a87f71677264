// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a file of one instruction set (baseline.cpp, avx2.cpp, ...) includes before anything else.
//
// Headers stand before POLYSKETCH_TARGET_BEGIN: an inline function of theirs that is compiled for
// AVX-512 behind it could be the copy that the linker keeps for the whole program.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#ifdef __x86_64__
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 reports its own intrinsics' deliberately undefined registers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

#include "kernels/cpu/cpu_kernels.hpp"
#include "kernels/cpu/scratch.hpp"

#define POLYSKETCH_PRAGMA(...) _Pragma(#__VA_ARGS__)

/// Functions up to POLYSKETCH_TARGET_END, or to the end of the file, are compiled for these
/// instructions.
#ifdef __clang__
#define POLYSKETCH_WIDE
#define POLYSKETCH_TARGET_BEGIN(features) \
  POLYSKETCH_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define POLYSKETCH_TARGET_END POLYSKETCH_PRAGMA(clang attribute pop)
#else
#define POLYSKETCH_WIDE , "prefer-vector-width=512"
#define POLYSKETCH_TARGET_BEGIN(features) POLYSKETCH_PRAGMA(GCC target(features))
#define POLYSKETCH_TARGET_END
#endif
