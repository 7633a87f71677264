// SPDX-License-Identifier: Apache-2.0
// What the kernels' benchmarks measure with, and measure against.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace polysketch::kernels {
namespace {

constexpr int kRepeats = 7;

/// Shortest of several times, in seconds.
double shortest(const std::function<void()>& work) {
  double best = 1e30;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

#ifdef __x86_64__
constexpr int kRows = 6, kColumns = 4, kSteps = 64, kPasses = 20000;

struct alignas(64) Operands {
  uint32_t left[kRows][kSteps] = {};
  uint32_t right[kSteps][kColumns * 16] = {};
  float sums[16] = {};
};

// Two functions of one body: an intrinsic must be compiled for a function whose target has it.
#define POLYSKETCH_PRODUCT_LOOP(function, features, multiply_add)                                                     \
  __attribute__((target(features))) void function(Operands& x) {                                                      \
    __m512 sums[kRows][kColumns];                                                                                     \
    for (auto& row : sums) {                                                                                          \
      for (auto& sum : row) sum = _mm512_setzero_ps();                                                                \
    }                                                                                                                 \
    for (int pass = 0; pass < kPasses; ++pass) {                                                                      \
      for (int s = 0; s < kSteps; ++s) {                                                                              \
        __m512i right[kColumns];                                                                                      \
        _Pragma("GCC unroll 4") for (int n = 0; n < kColumns; ++n) right[n] = _mm512_load_si512(x.right[s] + n * 16); \
        _Pragma("GCC unroll 6") for (int m = 0; m < kRows; ++m) {                                                     \
          const __m512i left = _mm512_set1_epi32(static_cast<int>(x.left[m][s]));                                     \
          _Pragma("GCC unroll 4") for (int n = 0; n < kColumns; ++n) sums[m][n] = multiply_add;                       \
        }                                                                                                             \
      }                                                                                                               \
    }                                                                                                                 \
    for (const auto& row : sums) {                                                                                    \
      for (const auto& sum : row) _mm512_store_ps(x.sums, _mm512_add_ps(_mm512_load_ps(x.sums), sum));                \
    }                                                                                                                 \
  }

POLYSKETCH_PRODUCT_LOOP(fp32_products, "avx512f", _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right[n]), sums[m][n]))
POLYSKETCH_PRODUCT_LOOP(bf16_products, "avx512f,avx512bf16",
                        _mm512_dpbf16_ps(sums[m][n], reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right[n])))

/// GFLOP/s of products alone.
double product_rate(bool bf16_numbers) {
  auto operands = std::make_unique<Operands>();
  const double flops = 2.0 * (bf16_numbers ? 2 : 1) * kRows * kColumns * 16 * kSteps * kPasses;
  return flops / shortest([&] { bf16_numbers ? bf16_products(*operands) : fp32_products(*operands); }) * 1e-9;
}
#else
double product_rate(bool) { return 0; }
#endif

}  // namespace
}  // namespace polysketch::kernels
