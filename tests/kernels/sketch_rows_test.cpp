// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/sketch_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "helpers/tolerances.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

namespace tolerance = polysketch::test::tolerance;

using Numbers = std::vector<double>;

struct Aligned {
  explicit Aligned(size_t bytes) : data(::operator new(bytes, std::align_val_t(64))) {}
  ~Aligned() { ::operator delete(data, std::align_val_t(64)); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  void* data;
};

struct Shape {
  int64_t rows, width, size;

  std::string text() const {
    return "n=" + std::to_string(rows) + " in=" + std::to_string(width) +
           " R=" + std::to_string(size);
  }
  int64_t in(int level) const { return level == 0 ? width : size; }
};

/// One level in fp64, a row at a time.
struct ReferenceLevel {
  int64_t in = 0, size = 0;
  const float *gain = nullptr, *bias = nullptr, *up = nullptr, *down = nullptr;
  // Of the last row:
  Numbers unit, normed, hidden;
  double rstd = 0;

  static constexpr double kRoot = 0.7978845608028654;  // √(2/π)
  static double bend(double x) { return std::tanh(kRoot * (x + 0.044715 * x * x * x)); }
  static double gelu(double x) { return 0.5 * x * (1 + bend(x)); }
  static double slope(double x) {
    const double t = bend(x);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kRoot * (1 + 3 * 0.044715 * x * x);
  }

  Numbers forward(const Numbers& x) {
    const auto n = static_cast<size_t>(in);
    double mean = 0, variance = 0;
    for (const double v : x) mean += v / static_cast<double>(in);
    for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(in);
    rstd = 1 / std::sqrt(variance + 1e-5);
    unit.resize(n);
    normed.resize(n);
    for (size_t i = 0; i < n; ++i) {
      unit[i] = (x[i] - mean) * rstd;
      normed[i] = unit[i] * gain[i] + bias[i];
    }
    const auto count = static_cast<size_t>(8 * size);
    hidden.assign(count, 0);
    Numbers y(static_cast<size_t>(size));
    for (size_t h = 0; h < count; ++h) {
      for (size_t i = 0; i < n; ++i) hidden[h] += normed[i] * up[h * n + i];
      const double g = gelu(hidden[h]);
      for (size_t r = 0; r < y.size(); ++r) y[r] += g * down[r * count + h];
    }
    return y;
  }

  /// gradients: of gain, bias, up, down.
  Numbers backward(const Numbers& dy, double* gradients) const {
    const auto n = static_cast<size_t>(in), count = hidden.size();
    double* dup = gradients + 2 * n;
    double* ddown = dup + count * n;
    Numbers dnormed(n), dx(n);
    for (size_t h = 0; h < count; ++h) {
      double d = 0;
      const double g = gelu(hidden[h]);
      for (size_t r = 0; r < dy.size(); ++r) {
        d += dy[r] * down[r * count + h];
        ddown[r * count + h] += dy[r] * g;
      }
      d *= slope(hidden[h]);
      for (size_t i = 0; i < n; ++i) {
        dnormed[i] += d * up[h * n + i];
        dup[h * n + i] += d * normed[i];
      }
    }
    double sum = 0, product = 0;
    for (size_t i = 0; i < n; ++i) {
      gradients[i] += dnormed[i] * unit[i];
      gradients[n + i] += dnormed[i];
      sum += dnormed[i] * gain[i] / static_cast<double>(n);
      product += dnormed[i] * gain[i] * unit[i] / static_cast<double>(n);
    }
    for (size_t i = 0; i < n; ++i) dx[i] = rstd * (dnormed[i] * gain[i] - sum - unit[i] * product);
    return dx;
  }
};

template <class T>
struct Case {
  static constexpr int64_t kGap = 5;
  static constexpr double kUntouched = 77;

  Case(Philox& random, const Shape& of) : shape(of) {
    inputs = rows(random, shape.width);
    ds = rows(random, shape.size);
    s = untouched(shape.size);
    dx = untouched(shape.width);
    for (int side = 0; side < 2; ++side) {
      for (int level = 0; level < 2; ++level) {
        const int64_t in = shape.in(level), hidden = 8 * shape.size;
        const auto take = [&](int64_t count, double scale, double mean) {
          parameters.push_back(
              std::make_unique<std::vector<float>>(normals<float>(random, count, scale, mean)));
          parameter_count += count;
          return parameters.back()->data();
        };
        network.gain[side][level] = take(in, 0.2, 1);
        network.bias[side][level] = take(in, 0.2, 0);
        network.up[side][level] = take(hidden * in, 1.5 / std::sqrt(static_cast<double>(in)), 0);
        network.down[side][level] =
            take(shape.size * hidden, 1.5 / std::sqrt(static_cast<double>(hidden)), 0);
      }
    }
    gradients.assign(static_cast<size_t>(parameter_count), 0.0F);
    kernel = sketch_kernels<T>(shape.width, shape.size);
  }

  int64_t stride(int64_t columns) const { return columns + kGap; }
  std::vector<T> untouched(int64_t columns) const {
    std::vector<T> x(static_cast<size_t>(shape.rows * stride(columns)));
    for (T& value : x) narrow(value, kUntouched);
    return x;
  }
  std::vector<T> rows(Philox& random, int64_t columns) const {
    std::vector<T> x = untouched(columns);
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t i = 0; i < columns; ++i)
        narrow(x[static_cast<size_t>(r * stride(columns) + i)], random.normal());
    }
    return x;
  }
  Numbers row(const std::vector<T>& x, int64_t r, int64_t columns) const {
    Numbers result;
    for (int64_t i = 0; i < columns; ++i)
      result.push_back(widen(x[static_cast<size_t>(r * stride(columns) + i)]));
    return result;
  }
  Numbers values(const std::vector<T>& x, int64_t columns) const {
    Numbers result;
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (const double v : row(x, r, columns)) result.push_back(v);
    }
    return result;
  }
  bool gaps_untouched(const std::vector<T>& x, int64_t columns) const {
    for (int64_t r = 0; r < shape.rows; ++r) {
      for (int64_t i = columns; i < stride(columns); ++i) {
        if (widen(x[static_cast<size_t>(r * stride(columns) + i)]) != kUntouched) return false;
      }
    }
    return true;
  }

  HeadRows<const T> input(const std::vector<T>& x, int64_t columns, int64_t first) const {
    return {x.data() + first * stride(columns), stride(columns)};
  }
  HeadRows<T> output(std::vector<T>& x, int64_t columns, int64_t first) const {
    return {x.data() + first * stride(columns), stride(columns)};
  }
  /// Forward and backward in slices of `slice` rows.
  void compute(int64_t slice) {
    const int64_t width = shape.width, size = shape.size;
    const Aligned packed(kernel->packed_bytes(width, size));
    const Aligned scratch(
        std::max(kernel->forward_scratch(width, size), kernel->backward_scratch(width, size)));
    kernel->pack(network, width, size, packed.data);
    for (int64_t first = 0; first < shape.rows; first += slice) {
      const int64_t count = std::min(slice, shape.rows - first);
      const HeadRows<const T> in = input(inputs, width, first);
      kernel->forward(packed.data, width, size, in, count, output(s, size, first), scratch.data);
      kernel->backward(packed.data, width, size, in, count, input(ds, size, first),
                       output(dx, width, first), gradients.data(), scratch.data);
    }
  }

  Shape shape;
  SketchNetwork network{};
  std::vector<std::unique_ptr<std::vector<float>>> parameters;
  int64_t parameter_count = 0;
  std::vector<T> inputs, ds, s, dx;
  std::vector<float> gradients;
  const SketchKernels<T>* kernel = nullptr;
};

struct Results {
  Numbers s, dx, parameters;
};

template <class T>
Results reference(const Case<T>& c) {
  const Shape& shape = c.shape;
  Results result;
  result.parameters.resize(static_cast<size_t>(c.parameter_count));
  ReferenceLevel levels[2][2];
  for (int side = 0; side < 2; ++side) {
    for (int l = 0; l < 2; ++l) {
      ReferenceLevel& level = levels[side][l];
      level.in = shape.in(l);
      level.size = shape.size;
      level.gain = c.network.gain[side][l];
      level.bias = c.network.bias[side][l];
      level.up = c.network.up[side][l];
      level.down = c.network.down[side][l];
    }
  }
  const double root = std::sqrt(static_cast<double>(shape.size));
  for (int64_t row = 0; row < shape.rows; ++row) {
    const Numbers x = c.row(c.inputs, row, shape.width);
    Numbers f[2], d[2], dx[2];
    for (int side = 0; side < 2; ++side)
      f[side] = levels[side][1].forward(levels[side][0].forward(x));
    const Numbers ds = c.row(c.ds, row, shape.size);
    for (size_t i = 0; i < ds.size(); ++i) {
      const double t = std::tanh(f[0][i] * f[1][i] / root);
      result.s.push_back(root * t);
      d[0].push_back(ds[i] * (1 - t * t) * f[1][i]);
      d[1].push_back(ds[i] * (1 - t * t) * f[0][i]);
    }
    double* gradients = result.parameters.data();
    for (int side = 0; side < 2; ++side) {
      double* second = gradients + 2 * shape.width + 8 * shape.size * (shape.width + shape.size);
      dx[side] = levels[side][0].backward(levels[side][1].backward(d[side], second), gradients);
      gradients = second + 2 * shape.size + 16 * shape.size * shape.size;
    }
    for (size_t i = 0; i < x.size(); ++i) result.dx.push_back(dx[0][i] + dx[1][i]);
  }
  return result;
}

double relative_error(const Numbers& got, const Numbers& want, size_t begin, size_t end) {
  double difference = 0, norm = 0;
  for (size_t i = begin; i < end; ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / norm);
}

template <class T>
void expect_reference(Case<T>& c, double bound, double output_bound) {
  const Shape& shape = c.shape;
  const Results want = reference(c);
  const auto compare = [&](const Numbers& got, const Numbers& wanted, double limit,
                           const char* what) {
    ASSERT_EQ(got.size(), wanted.size());
    EXPECT_LE(relative_error(got, wanted, 0, got.size()), limit) << what << ", " << shape.text();
  };
  compare(c.values(c.s, shape.size), want.s, output_bound, "s");
  compare(c.values(c.dx, shape.width), want.dx, output_bound, "dx");
  EXPECT_TRUE(c.gaps_untouched(c.s, shape.size) && c.gaps_untouched(c.dx, shape.width))
      << shape.text();
  const Numbers gradients = widened(c.gradients);
  size_t at = 0;
  for (size_t i = 0; i < c.parameters.size(); ++i) {
    const size_t end = at + c.parameters[i]->size();
    EXPECT_LE(relative_error(gradients, want.parameters, at, end), bound)
        << "parameter " << i << ", " << shape.text();
    at = end;
  }
}

template <class T>
void expect_every_shape(Philox& random, double bound, double output_bound) {
  for (const int64_t rows : {1, 7, 64, 333}) {
    for (const int64_t size : {16, 32, 64}) {
      for (const int64_t width : {32, 64}) {
        if (size == 64 && rows == 333 && width == 32) continue;  // the reference takes its time
        Case<T> c(random, {rows, width, size});
        ASSERT_NE(c.kernel, nullptr);
        c.compute(rows);
        expect_reference(c, bound, output_bound);
      }
    }
  }
}

/// Only the instruction sets that have these kernels.
class SketchRows : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, SketchRows,
                         ::testing::Values(Variant{InstructionSet::avx512, false},
                                           Variant{InstructionSet::avx512, true},
                                           Variant{InstructionSet::amx, true}),
                         [](const auto& test) { return name(test.param); });

TEST_P(SketchRows, Fp32EqualsTheReference) {
  expect_every_shape<float>(random, tolerance::kSingleNetwork, tolerance::kSingleNetwork);
}

TEST_P(SketchRows, Bf16EqualsTheReference) {
  // Without bf16 products only the results are rounded to bf16.
  const bool brain = GetParam().bf16_instructions;
  expect_every_shape<bf16>(random, brain ? tolerance::kBrainNetwork : tolerance::kSingleNetwork,
                           brain ? tolerance::kBrainNetwork : tolerance::kReorderedBrain);
}

TEST_P(SketchRows, OtherRemaindersOfTheRegisterBlocks) {
  Case<float> c(random, {100, 48, 80});
  c.compute(100);
  expect_reference(c, tolerance::kSingleNetwork, tolerance::kSingleNetwork);
}

TEST_P(SketchRows, SlicesAddUp) {
  Case<float> c(random, {333, 64, 32});
  c.compute(100);
  expect_reference(c, tolerance::kSingleNetwork, tolerance::kSingleNetwork);
}

TEST_P(SketchRows, RowsDoNotDependOnTheirSlice) {
  Case<bf16> c(random, {200, 64, 32});
  c.compute(200);
  const auto s = c.s, dx = c.dx;
  c.compute(71);
  EXPECT_TRUE(same_bits(c.s, s) && same_bits(c.dx, dx));
}

// Far out gelu is x or 0 and the sketch ±√R: no ∞/∞ on the way.
TEST_P(SketchRows, LargeNumbersStayFinite) {
  Case<float> c(random, {64, 32, 16});
  for (const auto& p : c.parameters) {
    for (float& x : *p) x *= 100;
  }
  c.compute(64);
  for (const double x : c.values(c.s, 16)) EXPECT_LE(std::abs(x), 4.0);
  for (const double x : c.values(c.dx, 32)) EXPECT_TRUE(std::isfinite(x));
  for (const float x : c.gradients) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(SketchRows, OtherWidthsAreLeftToOthers) {
  EXPECT_NE(sketch_kernels<float>(16, 16), nullptr);
  EXPECT_EQ(sketch_kernels<float>(40, 32), nullptr);
  EXPECT_EQ(sketch_kernels<float>(64, 24), nullptr);
  EXPECT_EQ(sketch_kernels<bf16>(272, 32), nullptr);
  EXPECT_EQ(sketch_kernels<bf16>(64, 144), nullptr);
  use_instruction_set(InstructionSet::baseline);
  EXPECT_EQ(sketch_kernels<bf16>(64, 32), nullptr);
}

}  // namespace
}  // namespace polysketch::kernels::test
