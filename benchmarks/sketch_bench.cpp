// SPDX-License-Identifier: Apache-2.0
// Time of the learned sketch of rows of 64 numbers on one thread.
//
// GFLOP/s counts two operations for each product of a number with a weight, and backward three
// times as many: it computes the rows again. Beside it stands what a loop of nothing but products
// of registers and the first-level cache reaches in the same moment.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <vector>

#include "kernels/cpu/sketch_rows.hpp"
#include "product_rate.hpp"
#include "support/philox.hpp"

namespace polysketch::kernels {
namespace {

constexpr int64_t kCount = 4096, kWidth = 64;

template <class T>
void measure(const char* type, int64_t size) {
  const SketchKernels<T>* kernel = sketch_kernels<T>(kWidth, size);
  if (kernel == nullptr) {
    std::printf("%s: no kernel on this machine\n", type);
    return;
  }
  Philox random(1, RandomPurpose::test);
  const auto numbers = [&](auto zero, int64_t count, double scale) {
    std::vector<decltype(zero)> x(static_cast<size_t>(count));
    for (auto& value : x) {
      const auto number = static_cast<float>(scale * random.normal());
      if constexpr (std::is_same_v<decltype(zero), float>) {
        value = number;
      } else {
        value = to_bf16(number);
      }
    }
    return x;
  };
  const std::vector<T> x = numbers(T{}, kCount * kWidth, 1), ds = numbers(T{}, kCount * size, 1);
  std::vector<T> s(ds.size()), dx(x.size());
  SketchNetwork network{};
  std::vector<std::vector<float>> parameters;
  size_t count = 0;
  const auto take = [&](int64_t length, int64_t fan_in) {
    parameters.push_back(numbers(0.0F, length, 1 / std::sqrt(static_cast<double>(fan_in))));
    count += parameters.back().size();
    return parameters.back().data();
  };
  for (int side = 0; side < 2; ++side) {
    for (int level = 0; level < 2; ++level) {
      const int64_t in = level == 0 ? kWidth : size;
      network.gain[side][level] = take(in, 1);
      network.bias[side][level] = take(in, 1);
      network.up[side][level] = take(8 * size * in, in);
      network.down[side][level] = take(8 * size * size, 8 * size);
    }
  }
  std::vector<float> gradients(count);
  const std::align_val_t line{64};
  void* packed = ::operator new(kernel->packed_bytes(kWidth, size), line);
  void* scratch = ::operator new(
      std::max(kernel->forward_scratch(kWidth, size), kernel->backward_scratch(kWidth, size)),
      line);
  kernel->pack(network, kWidth, size, packed);
  const double rate = product_rate(kernel->name);
  const HeadRows<const T> rows{x.data(), kWidth};
  const double forward = shortest([&] {
    kernel->forward(packed, kWidth, size, rows, kCount, {s.data(), size}, scratch);
  });
  const double backward = shortest([&] {
    kernel->backward(packed, kWidth, size, rows, kCount, {ds.data(), size}, {dx.data(), kWidth},
                     gradients.data(), scratch);
  });
  ::operator delete(scratch, line);
  ::operator delete(packed, line);
  const double products = 2.0 * 2 * static_cast<double>(8 * size * (kWidth + 3 * size) * kCount);
  const auto print = [&](const char* pass, double time, int times) {
    const double reached = times * products / time * 1e-9;
    std::printf("%-5s R=%-3lld %-8s %8.2f ms %8.1f GFLOP/s, %3.0f %% of %.1f (%s)\n", type,
                static_cast<long long>(size), pass, time * 1e3, reached, 100 * reached / rate, rate,
                kernel->name);
  };
  print("forward", forward, 1);
  print("backward", backward, 3);
}

}  // namespace
}  // namespace polysketch::kernels

int main() {
  using namespace polysketch::kernels;
  for (const int64_t size : {32, 64}) {
    measure<bf16>("bf16", size);
    measure<float>("float", size);
  }
}
