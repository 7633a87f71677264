// SPDX-License-Identifier: Apache-2.0
// What the kernels' benchmarks measure with, and measure against.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
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
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
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
#define POLYSKETCH_PRODUCT_LOOP(function, features, multiply_add)                               \
  __attribute__((target(features))) void function(Operands& x) {                                \
    __m512 sums[kRows][kColumns];                                                               \
    for (auto& row : sums) {                                                                    \
      for (auto& sum : row) sum = _mm512_setzero_ps();                                          \
    }                                                                                           \
    for (int pass = 0; pass < kPasses; ++pass) {                                                \
      for (int s = 0; s < kSteps; ++s) {                                                        \
        __m512i right[kColumns];                                                                \
        _Pragma("GCC unroll 4") for (int n = 0; n < kColumns; ++n) right[n] =                   \
            _mm512_load_si512(x.right[s] + n * 16);                                             \
        _Pragma("GCC unroll 6") for (int m = 0; m < kRows; ++m) {                               \
          const __m512i left = _mm512_set1_epi32(static_cast<int>(x.left[m][s]));               \
          _Pragma("GCC unroll 4") for (int n = 0; n < kColumns; ++n) sums[m][n] = multiply_add; \
        }                                                                                       \
      }                                                                                         \
    }                                                                                           \
    for (const auto& row : sums) {                                                              \
      for (const auto& sum : row)                                                               \
        _mm512_store_ps(x.sums, _mm512_add_ps(_mm512_load_ps(x.sums), sum));                    \
    }                                                                                           \
  }

POLYSKETCH_PRODUCT_LOOP(fp32_products, "avx512f",
                        _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right[n]),
                                        sums[m][n]))
POLYSKETCH_PRODUCT_LOOP(bf16_products, "avx512f,avx512bf16",
                        _mm512_dpbf16_ps(sums[m][n], reinterpret_cast<__m512bh>(left),
                                         reinterpret_cast<__m512bh>(right[n])))

/// 16 x 16 products over 32 numbers, four sums in turn. Tiles: 0 to 3 sums, 4 left, 5 right.
__attribute__((target("amx-tile,amx-bf16"))) void tile_products(Operands& x) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } configuration;
  _tile_loadconfig(&configuration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int pass = 0; pass < kPasses; ++pass) {
    _tile_loadd(4, x.right, 64);
    _tile_loadd(5, x.right, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
}

/// GFLOP/s of products alone, of the kind that a kernel of this name makes.
double product_rate(std::string_view kernel) {
  auto operands = std::make_unique<Operands>();
  const auto rate = [&](double flops, void (*loop)(Operands&)) {
    return flops * kPasses / shortest([&] { loop(*operands); }) * 1e-9;
  };
  if (kernel == "amx") return rate(2.0 * 4 * 16 * 16 * 32, tile_products);
  const double products = 2.0 * kRows * kColumns * 16 * kSteps;
  return kernel == "avx512_bf16" ? rate(2 * products, bf16_products)
                                 : rate(products, fp32_products);
}
#else
double product_rate(std::string_view) { return 0; }
#endif

}  // namespace
}  // namespace polysketch::kernels
