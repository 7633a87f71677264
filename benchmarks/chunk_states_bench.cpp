// SPDX-License-Identifier: Apache-2.0
// Time of one head of chunk states on one thread, T = 8192, blocks of 1024 rows, values of 64
// numbers.
//
// GFLOP/s counts two operations for each of the R(R+1)/2 · (E+1) products of a row with a state:
// two such products a row forward, five backward. Beside it stands what a loop of nothing but
// products of registers and the first-level cache reaches in the same moment.
#include <algorithm>
#include <cstdio>
#include <new>
#include <vector>

#include "kernels/cpu/chunk_states_head.hpp"
#include "product_rate.hpp"
#include "support/philox.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kLength = 8192, kBlock = 1024, kValueWidth = 64;

template <class T>
void measure(const char* type, int64_t width) {
  const ChunkStateKernels<T>* kernel = chunk_state_kernels<T>(width, kValueWidth);
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
  ChunkHead<T> head;
  head.a = {a.data(), width};
  head.b = {b.data(), width};
  head.v = {v.data(), kValueWidth};
  head.length = kLength;
  head.width = width;
  head.value_width = kValueWidth;
  head.block = kBlock;
  const size_t bytes = std::max(kernel->forward_scratch(width, kValueWidth),
                                kernel->backward_scratch(width, kValueWidth));
  void* scratch = ::operator new(bytes, std::align_val_t(64));
  const double rate = product_rate(kernel->name);
  const double forward = shortest([&] {
    kernel->forward({head, {sum.data(), kValueWidth}, row_sum.data()}, scratch);
  });
  const double backward = shortest([&] {
    kernel->backward({head,
                      {sum.data(), kValueWidth},
                      row_sum.data(),
                      {da.data(), width},
                      {db.data(), width},
                      {dv.data(), kValueWidth}},
                     scratch);
  });
  ::operator delete(scratch, std::align_val_t(64));
  const double product =
      2.0 * static_cast<double>(width * (width + 1) / 2 * (kValueWidth + 1) * (kLength - kBlock));
  const auto line = [&](const char* pass, double time, int products) {
    const double reached = products * product / time * 1e-9;
    std::printf("%-5s R=%-3lld %-8s %8.2f ms %8.1f GFLOP/s, %3.0f %% of %.1f (%s)\n", type,
                static_cast<long long>(width), pass, time * 1e3, reached, 100 * reached / rate,
                rate, kernel->name);
  };
  line("forward", forward, 2);
  line("backward", backward, 5);
}

}  // namespace
}  // namespace polysketch::kernels

int main() {
  using namespace polysketch::kernels;
  for (const int64_t width : {32, 64}) {
    measure<bf16>("bf16", width);
    measure<float>("float", width);
  }
}
