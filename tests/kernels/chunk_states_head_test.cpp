// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/chunk_states_head.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "helpers/tolerances.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

namespace tolerance = polysketch::test::tolerance;

struct Scratch {
  explicit Scratch(size_t bytes) : data(::operator new(bytes, std::align_val_t(64))) {}
  ~Scratch() { ::operator delete(data, std::align_val_t(64)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data;
};

struct Shape {
  int64_t length, width, value_width, block;

  std::string text() const {
    return "T=" + std::to_string(length) + " R=" + std::to_string(width) +
           " E=" + std::to_string(value_width) + " block=" + std::to_string(block);
  }
};

/// Rows with room between them that must stay as it is.
template <class T>
struct Rows {
  static constexpr int64_t kGap = 5;

  Rows(int64_t count, int64_t columns)
      : length(count), width(columns), data(static_cast<size_t>(count * (columns + kGap))) {
    for (T& x : data) narrow(x, kUntouched);
  }
  int64_t stride() const { return width + kGap; }
  T& at(int64_t row, int64_t i) { return data[static_cast<size_t>(row * stride() + i)]; }
  const T& at(int64_t row, int64_t i) const {
    return data[static_cast<size_t>(row * stride() + i)];
  }
  HeadRows<T> rows() { return {data.data(), stride()}; }
  HeadRows<const T> rows() const { return {data.data(), stride()}; }

  static Rows random(Philox& random, int64_t length, int64_t width) {
    Rows x(length, width);
    for (int64_t r = 0; r < length; ++r) {
      for (int64_t i = 0; i < width; ++i) narrow(x.at(r, i), random.normal());
    }
    return x;
  }
  std::vector<double> values() const {
    std::vector<double> result;
    for (int64_t r = 0; r < length; ++r) {
      for (int64_t i = 0; i < width; ++i) result.push_back(widen(at(r, i)));
    }
    return result;
  }
  bool gaps_untouched() const {
    for (int64_t r = 0; r < length; ++r) {
      for (int64_t i = width; i < stride(); ++i) {
        if (widen(at(r, i)) != kUntouched) return false;
      }
    }
    return true;
  }
  std::vector<T> first_rows(int64_t count) const {
    return {data.begin(), data.begin() + count * stride()};
  }

  static constexpr double kUntouched = 77;
  int64_t length, width;
  std::vector<T> data;
};

template <class T>
struct Case {
  Case(Philox& random, const Shape& of)
      : shape(of),
        a(Rows<T>::random(random, of.length, of.width)),
        b(Rows<T>::random(random, of.length, of.width)),
        v(Rows<T>::random(random, of.length, of.value_width)),
        sum_gradient(Rows<float>::random(random, of.length, of.value_width)),
        row_sum_gradient(normals<float>(random, of.length)),
        sum(of.length, of.value_width),
        row_sum(static_cast<size_t>(of.length), -1),
        da(of.length, of.width),
        db(of.length, of.width),
        dv(of.length, of.value_width) {}

  ChunkHead<T> head() const {
    ChunkHead<T> head;
    head.a = a.rows();
    head.b = b.rows();
    head.v = v.rows();
    head.length = shape.length;
    head.width = shape.width;
    head.value_width = shape.value_width;
    head.block = shape.block;
    return head;
  }
  void forward() {
    const ChunkStateKernels<T>* kernel = chunk_state_kernels<T>(shape.width, shape.value_width);
    ASSERT_NE(kernel, nullptr);
    const Scratch scratch(kernel->forward_scratch(shape.width, shape.value_width));
    kernel->forward({head(), sum.rows(), row_sum.data()}, scratch.data);
  }
  void backward() {
    const ChunkStateKernels<T>* kernel = chunk_state_kernels<T>(shape.width, shape.value_width);
    ASSERT_NE(kernel, nullptr);
    const Scratch scratch(kernel->backward_scratch(shape.width, shape.value_width));
    const Rows<float>& gradient = sum_gradient;
    kernel->backward(
        {head(), gradient.rows(), row_sum_gradient.data(), da.rows(), db.rows(), dv.rows()},
        scratch.data);
  }
  bool sees(int64_t i, int64_t j) const { return j / shape.block < i / shape.block; }

  Shape shape;
  Rows<T> a, b, v;
  Rows<float> sum_gradient;
  std::vector<float> row_sum_gradient;
  Rows<float> sum;
  std::vector<float> row_sum;
  Rows<T> da, db, dv;
};

/// Every pair by itself, in fp64. Order: N, z, da, db, dv.
template <class T>
std::vector<std::vector<double>> dense(const Case<T>& c) {
  const int64_t length = c.shape.length, width = c.shape.width, values = c.shape.value_width;
  const std::vector<double> a = c.a.values(), b = c.b.values(), v = c.v.values(),
                            dn = c.sum_gradient.values();
  const auto zeros = [](int64_t count) { return std::vector<double>(static_cast<size_t>(count)); };
  std::vector<double> n = zeros(length * values), z = zeros(length), da = zeros(length * width),
                      db = da, dv = n;
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      if (!c.sees(i, j)) continue;
      const double* query = a.data() + i * width;
      const double* key = b.data() + j * width;
      double score = 0, slope = c.row_sum_gradient[static_cast<size_t>(i)];
      for (int64_t r = 0; r < width; ++r) score += query[r] * key[r];
      for (int64_t e = 0; e < values; ++e) {
        n[static_cast<size_t>(i * values + e)] +=
            score * score * v[static_cast<size_t>(j * values + e)];
        dv[static_cast<size_t>(j * values + e)] +=
            score * score * dn[static_cast<size_t>(i * values + e)];
        slope += dn[static_cast<size_t>(i * values + e)] * v[static_cast<size_t>(j * values + e)];
      }
      z[static_cast<size_t>(i)] += score * score;
      for (int64_t r = 0; r < width; ++r) {
        da[static_cast<size_t>(i * width + r)] += 2 * score * slope * key[r];
        db[static_cast<size_t>(j * width + r)] += 2 * score * slope * query[r];
      }
    }
  }
  return {n, z, da, db, dv};
}

double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

template <class T>
void expect_dense(Philox& random, const Shape& shape, double bound, double gradient_bound) {
  Case<T> c(random, shape);
  c.forward();
  c.backward();
  const auto want = dense(c);
  const std::vector<std::vector<double>> got = {c.sum.values(), widened(c.row_sum), c.da.values(),
                                                c.db.values(), c.dv.values()};
  constexpr const char* kNames[] = {"N", "z", "da", "db", "dv"};
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE(relative_error(got[i], want[i]), i < 2 ? bound : gradient_bound)
        << kNames[i] << ", " << shape.text();
  }
  EXPECT_TRUE(std::all_of(c.row_sum.begin(), c.row_sum.end(), [](float z) { return z >= 0; }))
      << shape.text();
  EXPECT_TRUE(c.sum.gaps_untouched() && c.da.gaps_untouched() && c.db.gaps_untouched() &&
              c.dv.gaps_untouched())
      << shape.text();
}

std::vector<Shape> shapes() {
  std::vector<Shape> result;
  for (const int64_t block : {16, 64, 100}) {
    for (const int64_t length :
         {int64_t{1}, block - 1, block, block + 1, 3 * block + 5, int64_t{333}}) {
      for (const int64_t width : {16, 32, 64}) {
        for (const int64_t values : {16, 64}) result.push_back({length, width, values, block});
      }
    }
  }
  // Other remainders of the register blocks, and the widest rows.
  result.push_back({150, 48, 32, 64});
  result.push_back({150, 80, 48, 64});
  result.push_back({150, 128, 128, 64});
  return result;
}

/// Only the instruction sets that have these kernels.
class ChunkStates : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, ChunkStates,
                         ::testing::Values(Variant{InstructionSet::avx512, false},
                                           Variant{InstructionSet::avx512, true},
                                           Variant{InstructionSet::amx, true}),
                         [](const auto& test) { return name(test.param); });

TEST_P(ChunkStates, Fp32EqualsTheDenseSums) {
  for (const Shape& shape : shapes())
    expect_dense<float>(random, shape, tolerance::kSingleStates, tolerance::kSingleStates);
}

TEST_P(ChunkStates, Bf16EqualsTheDenseSums) {
  // Without bf16 products only the gradients are rounded to bf16.
  const double bound =
      GetParam().bf16_instructions ? tolerance::kBrainStates : tolerance::kSingleStates;
  const double gradient_bound =
      GetParam().bf16_instructions ? tolerance::kBrainStates : tolerance::kReorderedBrain;
  for (const Shape& shape : shapes()) expect_dense<bf16>(random, shape, bound, gradient_bound);
}

template <class T>
void expect_causal(Philox& random, double other) {
  const Shape shape{333, 32, 64, 64};
  for (const int64_t row : {0, 63, 64, 150, 199, 332}) {
    Case<T> before(random, shape);
    Case<T> after = before;
    narrow(after.a.at(row, 3), other);
    narrow(after.b.at(row, 5), other);
    narrow(after.v.at(row, 7), other);
    before.forward();
    after.forward();
    // Keys of a block are seen by later blocks only, the query's own row by none but itself.
    const int64_t behind = std::min(shape.length, (row / shape.block + 1) * shape.block);
    EXPECT_TRUE(same_bits(before.sum.first_rows(row), after.sum.first_rows(row))) << row;
    for (int64_t t = 0; t < behind; ++t) {
      if (t == row) continue;
      EXPECT_EQ(before.row_sum[static_cast<size_t>(t)], after.row_sum[static_cast<size_t>(t)])
          << row << " " << t;
      for (int64_t e = 0; e < shape.value_width; ++e)
        ASSERT_EQ(before.sum.at(t, e), after.sum.at(t, e)) << row << " " << t;
    }
    if (behind < shape.length && before.sees(behind, row)) {
      EXPECT_FALSE(same_bits(before.row_sum, after.row_sum))
          << "row " << row << " has no effect at all";
    }
  }
}

TEST_P(ChunkStates, ARowChangesNothingBeforeIt) {
  for (const double other :
       {3.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    expect_causal<float>(random, other);
    expect_causal<bf16>(random, other);
  }
}

// The gradients of a row depend on later cotangents only (keys, values) or on its own (queries).
TEST_P(ChunkStates, ANanInACotangentReachesNoLaterKey) {
  Case<bf16> before(random, {333, 32, 64, 64});
  Case<bf16> after = before;
  const int64_t row = 150;
  after.sum_gradient.at(row, 9) = std::numeric_limits<float>::quiet_NaN();
  before.backward();
  after.backward();
  for (int64_t t = 0; t < before.shape.length; ++t) {
    if (t != row) {
      EXPECT_EQ(widen(before.da.at(t, 0)), widen(after.da.at(t, 0))) << t;
    }
    if (t < row / 64 * 64) {
      EXPECT_TRUE(std::isnan(widen(after.db.at(t, 0)))) << t;
      EXPECT_TRUE(std::isnan(widen(after.dv.at(t, 9)))) << t;
    } else {
      EXPECT_EQ(widen(before.db.at(t, 0)), widen(after.db.at(t, 0))) << t;
      EXPECT_EQ(widen(before.dv.at(t, 9)), widen(after.dv.at(t, 9))) << t;
    }
  }
}

// (a·b)² = 0 with terms that cancel: rounded to bf16 their sum may fall below zero, the result may
// not.
TEST_P(ChunkStates, SumsOfOrthogonalRowsAreNotNegative) {
  Case<bf16> c(random, {256, 32, 16, 64});
  for (int64_t t = 0; t < 256; ++t) {
    for (int64_t r = 0; r < 32; r += 2) {
      c.b.at(t, r) = c.a.at(t % 7, r + 1);
      narrow(c.b.at(t, r + 1), -widen(c.a.at(t % 7, r)));
    }
    for (int64_t r = 0; r < 32; ++r) c.a.at(t, r) = c.a.at(t % 7, r);
  }
  c.forward();
  for (const float z : c.row_sum) EXPECT_GE(z, 0);
}

TEST_P(ChunkStates, OtherWidthsAreLeftToOthers) {
  EXPECT_NE(chunk_state_kernels<float>(16, 16), nullptr);
  EXPECT_EQ(chunk_state_kernels<float>(8, 64), nullptr);
  EXPECT_EQ(chunk_state_kernels<float>(32, 72), nullptr);
  EXPECT_EQ(chunk_state_kernels<bf16>(144, 64), nullptr);
  EXPECT_EQ(chunk_state_kernels<bf16>(32, 512), nullptr);
  use_instruction_set(InstructionSet::baseline);
  EXPECT_EQ(chunk_state_kernels<bf16>(32, 64), nullptr);
}

}  // namespace
}  // namespace polysketch::kernels::test
