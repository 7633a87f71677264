// SPDX-License-Identifier: Apache-2.0
// Time of one head of causal_blocks on one thread, T = 8192, blocks of 1024 rows, values of 64 numbers.
//
// GFLOP/s counts two operations for each of the R(R+1)/2 · (E+1) products of a row with a state: two such products a row forward, five
// backward. Beside it stands what a loop of nothing but products of registers and the first-level cache reaches in the same moment.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <new>
#include <vector>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "kernels/causal_blocks.hpp"
#include "kernels/instruction_set.hpp"
#include "support/philox.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLength = 8192, kBlock = 1024, kValueWidth = 64, kRepeats = 7;

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

template <class T>
void measure(const char* type, bool bf16_products, int64_t width) {
  const CausalKernels<T>* kernel = causal_kernels<T>(width, kValueWidth);
  if (kernel == nullptr) {
    std::printf("%s: no kernel on this machine\n", type);
    return;
  }
  Philox random(1, RandomPurpose::test);
  const auto numbers = [&](int64_t columns) {
    std::vector<T> x(static_cast<size_t>(kLength * columns));
    for (T& value : x) {
      const auto number = static_cast<float>(random.normal());
      if constexpr (std::is_same_v<T, float>) {
        value = number;
      } else {
        value = to_bf16(number);
      }
    }
    return x;
  };
  const std::vector<T> a = numbers(width), b = numbers(width), v = numbers(kValueWidth);
  std::vector<T> da(a.size()), db(a.size()), dv(v.size());
  std::vector<float> sum(v.size()), row_sum(kLength);
  CausalHead<T> head;
  head.a = {a.data(), width};
  head.b = {b.data(), width};
  head.v = {v.data(), kValueWidth};
  head.length = kLength;
  head.width = width;
  head.value_width = kValueWidth;
  head.block = kBlock;
  const size_t bytes = std::max(kernel->forward_scratch(width, kValueWidth), kernel->backward_scratch(width, kValueWidth));
  void* scratch = ::operator new(bytes, std::align_val_t(64));
  const double rate = product_rate(bf16_products);
  const double forward = shortest([&] { kernel->forward({head, {sum.data(), kValueWidth}, row_sum.data()}, scratch); });
  const double backward = shortest([&] {
    kernel->backward({head, {sum.data(), kValueWidth}, row_sum.data(), {da.data(), width}, {db.data(), width}, {dv.data(), kValueWidth}},
                     scratch);
  });
  ::operator delete(scratch, std::align_val_t(64));
  const double product = 2.0 * static_cast<double>(width * (width + 1) / 2 * (kValueWidth + 1) * (kLength - kBlock));
  const auto line = [&](const char* pass, double time, int products) {
    const double reached = products * product / time * 1e-9;
    std::printf("%-5s R=%-3lld %-8s %8.2f ms %8.1f GFLOP/s, %3.0f %% of %.1f (%s)\n", type, static_cast<long long>(width), pass, time * 1e3,
                reached, 100 * reached / rate, rate, kernel->name);
  };
  line("forward", forward, 2);
  line("backward", backward, 5);
}

}  // namespace
}  // namespace polysketch::kernels

int main() {
  using namespace polysketch::kernels;
  for (const int64_t width : {32, 64}) {
    measure<bf16>("bf16", bf16_instructions(), width);
    measure<float>("float", false, width);
  }
}
