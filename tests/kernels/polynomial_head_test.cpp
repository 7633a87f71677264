// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/polynomial_head.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cpu/cpu_kernels.hpp"
#include "support/philox.hpp"

// The values themselves are tested against dense references in tests/attention; here the
// implementations against each other, also those that this machine would not choose.

namespace polysketch::kernels {
namespace {

constexpr int64_t kLength = 215, kWidth = 48, kTileWidth = 64, kRows = kLength * kWidth;

struct Scratch {
  explicit Scratch(size_t bytes) : data(::operator new(bytes, std::align_val_t(64))) {}
  ~Scratch() { ::operator delete(data, std::align_val_t(64)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data;
};

std::vector<float> bf16_numbers(int64_t count, uint64_t stream) {
  Philox random(1, RandomPurpose::test, stream);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = to_float(to_bf16(static_cast<float>(random.normal())));
  return x;
}

template <class T>
std::vector<T> stored(const std::vector<float>& x) {
  std::vector<T> y(x.size());
  std::transform(x.begin(), x.end(), y.begin(), [](float value) {
    if constexpr (std::is_same_v<T, float>) {
      return value;
    } else {
      return to_bf16(value);
    }
  });
  return y;
}

float number(float x) { return x; }
float number(bf16 x) { return to_float(x); }

/// Output, dq, dk, dv, dgain, dbias, as fp32.
template <class T>
std::vector<std::vector<float>> run(const PolynomialKernels<T>& kernel, int64_t width = kWidth,
                                    int64_t length = kLength) {
  std::vector<std::vector<T>> in;
  for (uint64_t i = 0; i < 4; ++i) in.push_back(stored<T>(bf16_numbers(length * width, i)));
  std::vector<float> gain = bf16_numbers(width, 4), bias = bf16_numbers(width, 5),
                     normaliser(length), dgain(width), dbias(width);
  std::vector<std::vector<T>> out(4, std::vector<T>(length * width));
  std::vector<int32_t> starts(static_cast<size_t>(length), 0);
  std::fill(starts.begin() + 101, starts.end(), 101);
  const auto rows = [&](std::vector<T>& x) { return HeadRows<T>{x.data(), width}; };
  const auto const_rows = [&](const std::vector<T>& x) {
    return HeadRows<const T>{x.data(), width};
  };
  PolynomialHead<T> head;
  head.q = const_rows(in[0]);
  head.k = const_rows(in[1]);
  head.v = const_rows(in[2]);
  head.length = length;
  head.width = width;
  head.degree = 4;
  head.gain = gain.data();
  head.bias = bias.data();
  head.starts = starts.data();
  const Scratch forward(kernel.forward_scratch(length, width)),
      backward(kernel.backward_scratch(length, width));
  kernel.forward({head, rows(out[0]), normaliser.data()}, 0, length, forward.data);
  kernel.backward({head, const_rows(out[0]), normaliser.data(), const_rows(in[3]), rows(out[1]),
                   rows(out[2]), rows(out[3]), dgain.data(), dbias.data()},
                  backward.data);
  std::vector<std::vector<float>> result;
  for (const auto& x : out) {
    result.emplace_back();
    for (const T value : x) result.back().push_back(number(value));
  }
  result.push_back(dgain);
  result.push_back(dbias);
  return result;
}

double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += std::pow(static_cast<double>(x[i]) - y[i], 2);
    norm += std::pow(static_cast<double>(y[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class PolynomialVariants : public testing::Test {
 protected:
  void SetUp() override {
    if (!is_supported(InstructionSet::avx512)) GTEST_SKIP() << "this machine has no AVX-512";
  }
};

#ifdef __x86_64__
TEST_F(PolynomialVariants, Bf16RowsWithFp32ProductsDifferFromFp32ByRoundedResults) {
  const auto wide = run(*kAvx512.HeadKernels<float>::polynomial),
             narrow = run(*kAvx512.HeadKernels<bf16>::polynomial);
  for (size_t i = 0; i < wide.size(); ++i)
    EXPECT_LE(relative_error(narrow[i], wide[i]), i == 0 ? 3e-3 : 2e-2) << i;
}

TEST_F(PolynomialVariants, Bf16ProductsAreCloseToFp32Products) {
  if (!__builtin_cpu_supports("avx512bf16")) GTEST_SKIP() << "this machine has no AVX512_BF16";
  const auto wide = run(*kAvx512.HeadKernels<bf16>::polynomial),
             narrow = run(*kAvx512Bf16.HeadKernels<bf16>::polynomial);
  for (size_t i = 0; i < wide.size(); ++i) EXPECT_LE(relative_error(narrow[i], wide[i]), 3e-2) << i;
  if (!is_supported(InstructionSet::amx)) GTEST_SKIP() << "this machine has no AMX";
  // the second leaves half a step of keys in the last block
  for (const int64_t length : {kLength, int64_t{201}}) {
    const auto tiles = run(*kAmx.HeadKernels<bf16>::polynomial, kTileWidth, length),
               same = run(*kAvx512.HeadKernels<bf16>::polynomial, kTileWidth, length);
    for (size_t i = 0; i < same.size(); ++i)
      EXPECT_LE(relative_error(tiles[i], same[i]), 3e-2) << i << ", T = " << length;
  }
}
// What a caller with few heads does: slices of the queries, each alone.
TEST_F(PolynomialVariants, SlicesOfQueriesEqualTheWhole) {
  const auto& kernel = *kAvx512.HeadKernels<float>::polynomial;
  std::vector<std::vector<float>> in;
  for (uint64_t i = 0; i < 3; ++i) in.push_back(bf16_numbers(kRows, i));
  PolynomialHead<float> head;
  head.q = {in[0].data(), kWidth};
  head.k = {in[1].data(), kWidth};
  head.v = {in[2].data(), kWidth};
  head.length = kLength;
  head.width = kWidth;
  head.degree = 6;
  const Scratch scratch(kernel.forward_scratch(kLength, kWidth));
  std::vector<float> whole(kRows), whole_normaliser(kLength), pieces(kRows), normaliser(kLength);
  kernel.forward({head, {whole.data(), kWidth}, whole_normaliser.data()}, 0, kLength, scratch.data);
  int64_t begin = 0;
  for (const int64_t end : {1, 64, 70, 199, 200, 215}) {
    kernel.forward({head, {pieces.data(), kWidth}, normaliser.data()}, begin, end, scratch.data);
    begin = end;
  }
  EXPECT_EQ(whole, pieces);
  EXPECT_EQ(whole_normaliser, normaliser);
}

TEST_F(PolynomialVariants, RowsWithoutAnyWeightGiveZeros) {
  const auto& kernel = *kAvx512.HeadKernels<float>::polynomial;
  const std::vector<float> q(kRows, 0), x = bf16_numbers(kRows, 1);
  std::vector<float> output(kRows, 1), normaliser(kLength), dq(kRows, 1), dk(kRows, 1),
      dv(kRows, 1);
  PolynomialHead<float> head;
  head.q = {q.data(), kWidth};
  head.k = head.v = {x.data(), kWidth};
  head.length = kLength;
  head.width = kWidth;
  head.degree = 4;
  head.normaliser_offset = 0;
  const Scratch forward(kernel.forward_scratch(kLength, kWidth)),
      backward(kernel.backward_scratch(kLength, kWidth));
  kernel.forward({head, {output.data(), kWidth}, normaliser.data()}, 0, kLength, forward.data);
  EXPECT_EQ(output, std::vector<float>(kRows, 0));
  PolynomialBackward<float> job;
  job.head = head;
  job.output = {output.data(), kWidth};
  job.normaliser = normaliser.data();
  job.output_gradient = {x.data(), kWidth};
  job.dq = {dq.data(), kWidth};
  job.dk = {dk.data(), kWidth};
  job.dv = {dv.data(), kWidth};
  kernel.backward(job, backward.data);
  for (const auto& gradient : {dq, dk, dv}) EXPECT_EQ(gradient, std::vector<float>(kRows, 0));
}

#endif

TEST_F(PolynomialVariants, WidthsWithoutWholeRegistersAreLeftToOthers) {
  EXPECT_EQ(polynomial_kernels<float>(8), nullptr);
  EXPECT_EQ(polynomial_kernels<bf16>(72), nullptr);
  EXPECT_EQ(polynomial_kernels<bf16>(512), nullptr);
}

}  // namespace
}  // namespace polysketch::kernels
