// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

using LayerNormTest = KernelTest;

/// Everything a layer norm reads and writes, [rows, width].
template <class S, class A>
struct Case {
  int64_t rows, width;
  std::vector<S> x, sum, dresidual, dx;
  std::vector<A> delta, y, dy, dx_copy;
  std::vector<Real<S>> gain, bias, mean, rstd, dgain, dbias;

  Case(Philox& random, int64_t rows_, int64_t width_, double offset = 0)
      : rows(rows_), width(width_) {
    const int64_t n = rows * width;
    x = normals<S>(random, n, 1.5, offset), dresidual = normals<S>(random, n),
    delta = normals<A>(random, n), dy = normals<A>(random, n);
    gain = normals<Real<S>>(random, width, 0.3, 1), bias = normals<Real<S>>(random, width);
    dgain = normals<Real<S>>(random, width), dbias = normals<Real<S>>(random, width);
    sum.resize(x.size()), dx.resize(x.size()), y.resize(x.size()), dx_copy.resize(x.size());
    mean.resize(static_cast<size_t>(rows)), rstd.resize(static_cast<size_t>(rows));
  }

  LayerNormForward<S, A> forward(bool add) {
    return {.x = x.data(),
            .delta = add ? delta.data() : nullptr,
            .sum = add ? sum.data() : nullptr,
            .gain = gain.data(),
            .bias = bias.data(),
            .y = y.data(),
            .mean = mean.data(),
            .rstd = rstd.data(),
            .width = width};
  }
  LayerNormBackward<S, A> backward(bool residual) {
    return {.dy = dy.data(),
            .x = x.data(),
            .gain = gain.data(),
            .mean = mean.data(),
            .rstd = rstd.data(),
            .dresidual = residual ? dresidual.data() : nullptr,
            .dx = dx.data(),
            .dx_copy = dx_copy.data(),
            .dgain = dgain.data(),
            .dbias = dbias.data(),
            .width = width};
  }
};

struct Reference {
  std::vector<double> y, dx, dgain, dbias;
};

/// Textbook formulas in fp64, on what was normalised.
template <class S, class A>
Reference reference(const Case<S, A>& c, const std::vector<S>& input, bool residual) {
  const auto x = widened(input), gain = widened(c.gain), bias = widened(c.bias), dy = widened(c.dy);
  Reference r{std::vector<double>(x.size()), std::vector<double>(x.size()), widened(c.dgain),
              widened(c.dbias)};
  const auto width = static_cast<size_t>(c.width);
  for (size_t row = 0; row < static_cast<size_t>(c.rows); ++row) {
    double mean = 0, variance = 0, gradient = 0, product = 0;
    for (size_t i = 0; i < width; ++i) mean += x[row * width + i] / static_cast<double>(width);
    for (size_t i = 0; i < width; ++i)
      variance += std::pow(x[row * width + i] - mean, 2) / static_cast<double>(width);
    const double rstd = 1 / std::sqrt(variance + 1e-5);
    for (size_t i = 0; i < width; ++i) {
      const double normal = (x[row * width + i] - mean) * rstd, g = dy[row * width + i];
      r.y[row * width + i] = normal * gain[i] + bias[i];
      r.dgain[i] += g * normal;
      r.dbias[i] += g;
      gradient += g * gain[i] / static_cast<double>(width);
      product += g * gain[i] * normal / static_cast<double>(width);
    }
    for (size_t i = 0; i < width; ++i) {
      const double normal = (x[row * width + i] - mean) * rstd;
      r.dx[row * width + i] = rstd * (dy[row * width + i] * gain[i] - gradient - normal * product);
      if (residual) r.dx[row * width + i] += widen(c.dresidual[row * width + i]);
    }
  }
  return r;
}

template <class S, class A>
void check(Philox& random, int64_t rows, int64_t width, bool add) {
  SCOPED_TRACE(testing::Message() << rows << " x " << width << (add ? " with delta, " : " plain, ")
                                  << sizeof(S) << " and " << sizeof(A) << " bytes");
  Case<S, A> c(random, rows, width);
  layer_norm_forward(c.forward(add), 0, rows);
  if (add) {
    auto sum = widened(c.x);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += widen(c.delta[i]);
    expect_close(c.sum, sum, 1, "sum");
    c.x = c.sum;
  }
  const Reference want = reference(c, c.x, add);
  expect_close(c.y, want.y, 20, "y");
  layer_norm_backward(c.backward(add), 0, rows);
  // two numbers that are nearly equal give terms far greater than the gradient
  double steepest = 0;
  for (const auto rstd : c.rstd) steepest = std::max(steepest, 3 * static_cast<double>(rstd));
  expect_close(c.dx, want.dx, 40, "dx", steepest);
  expect_close(c.dx_copy, want.dx, 40, "dx_copy", steepest);
  const double additions = 40 + static_cast<double>(rows);
  expect_close(c.dgain, want.dgain, additions, "dgain");
  expect_close(c.dbias, want.dbias, additions, "dbias");
}

TEST_P(LayerNormTest, MeetsTheTextbookForEveryShapeAndType) {
  for (const bool add : {false, true}) {
    for (const int64_t width : {2, 3, 15, 16, 17, 63, 64, 65, 100, 768, 1283}) {
      for (const int64_t rows : {0, 1, 5}) {
        check<float, float>(random, rows, width, add);
        check<float, bf16>(random, rows, width, add);
        check<bf16, bf16>(random, rows, width, add);
        check<double, double>(random, rows, width, add);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(LayerNormTest, AddsInPlace) {
  Case<float, bf16> apart(random, 4, 77);
  Case<float, bf16> in_place = apart;
  layer_norm_forward(apart.forward(true), 0, 4);
  auto arguments = in_place.forward(true);
  arguments.sum = in_place.x.data();
  layer_norm_forward(arguments, 0, 4);
  EXPECT_TRUE(same_bits(apart.sum, in_place.x));
  EXPECT_TRUE(same_bits(apart.y, in_place.y));

  layer_norm_backward(apart.backward(true), 0, 4);
  in_place.x = apart.x;
  auto gradient = in_place.backward(true);
  gradient.dx = in_place.dresidual.data();
  layer_norm_backward(gradient, 0, 4);
  EXPECT_TRUE(same_bits(apart.dx, in_place.dresidual));
}

TEST_P(LayerNormTest, RowsDoNotDependOnTheCut) {
  Case<float, float> whole(random, 9, 101);
  Case<float, float> cut = whole;
  layer_norm_forward(whole.forward(true), 0, 9);
  layer_norm_backward(whole.backward(true), 0, 9);
  for (const auto& [begin, end] :
       std::vector<std::pair<int64_t, int64_t>>{{4, 9}, {0, 1}, {1, 4}}) {
    layer_norm_forward(cut.forward(true), begin, end);
    layer_norm_backward(cut.backward(true), begin, end);
  }
  EXPECT_TRUE(same_bits(whole.y, cut.y));
  EXPECT_TRUE(same_bits(whole.dx, cut.dx));
  EXPECT_TRUE(same_bits(whole.mean, cut.mean));
}

// E[x²] − E[x]² would lose everything here.
TEST_P(LayerNormTest, KeepsItsAccuracyFarFromZero) {
  Case<float, float> c(random, 3, 768, 1000);
  layer_norm_forward(c.forward(false), 0, 3);
  expect_close(c.y, reference(c, c.x, false).y, 2000, "y");
}

TEST_P(LayerNormTest, ARowOfEqualNumbersGivesTheBias) {
  Case<float, float> c(random, 1, 50);
  c.x.assign(50, 3.0f);
  layer_norm_forward(c.forward(false), 0, 1);
  expect_close(c.y, widened(c.bias), 4, "y");
}

TEST_P(LayerNormTest, GradientsAreTheSlopes) {
  Case<double, double> c(random, 3, 21);
  // Σ y·dy + Σ x·dresidual: its gradients are what the backward pass should give
  const auto value = [&] {
    layer_norm_forward(c.forward(false), 0, c.rows);
    double total = 0;
    for (size_t i = 0; i < c.y.size(); ++i) total += c.y[i] * c.dy[i] + c.x[i] * c.dresidual[i];
    return total;
  };
  value();
  c.dgain.assign(21, 0), c.dbias.assign(21, 0);
  layer_norm_backward(c.backward(true), 0, c.rows);
  const auto dx = c.dx;
  for (size_t i = 0; i < c.x.size(); ++i) EXPECT_NEAR(slope(value, c.x[i]), dx[i], 1e-8);
  for (size_t i = 0; i < c.gain.size(); ++i) {
    EXPECT_NEAR(slope(value, c.gain[i]), c.dgain[i], 1e-8);
    EXPECT_NEAR(slope(value, c.bias[i]), c.dbias[i], 1e-8);
  }
}

POLYSKETCH_EVERY_INSTRUCTION_SET(LayerNormTest);

}  // namespace
}  // namespace polysketch::kernels::test
