// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/cpu/row_kernels.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

using EmbeddingTest = KernelTest;
using AdamWTest = KernelTest;
using PassesTest = KernelTest;

template <class S>
void check_embedding(Philox& random, int64_t rows, int64_t width, double factor) {
  SCOPED_TRACE(testing::Message() << rows << " x " << width << " times " << factor << ", "
                                  << sizeof(S) << " bytes");
  const int64_t vocabulary = 11, length = 4;
  const auto scale = static_cast<Real<S>>(factor);
  const auto wide_scale = static_cast<double>(scale);
  const double roundings = factor == 1 ? 1 : 2;  // of the product, too
  const auto table = normals<S>(random, vocabulary * width);
  const auto positions = normals<Real<S>>(random, length * width);
  const auto dx = normals<S>(random, rows * width);
  auto dtable = normals<Real<S>>(random, vocabulary * width);
  std::vector<int64_t> ids;
  for (int64_t r = 0; r < rows; ++r)
    ids.push_back(static_cast<int64_t>(random.bounded(vocabulary)));
  std::vector<S> x(dx.size());
  auto want_dtable = widened(dtable);
  std::vector<double> want(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const auto from = static_cast<size_t>(ids[static_cast<size_t>(r)] * width + i),
                 at = static_cast<size_t>(r * width + i);
      want[at] = wide_scale * widen(table[from]) +
                 static_cast<double>(positions[static_cast<size_t>(r % length * width + i)]);
      want_dtable[from] += wide_scale * widen(dx[at]);
    }
  }
  const EmbeddingForward<S> forward{.ids = ids.data(),
                                    .table = table.data(),
                                    .positions = positions.data(),
                                    .x = x.data(),
                                    .length = length,
                                    .width = width,
                                    .scale = scale};
  embedding_forward(forward, 0, rows / 2);
  embedding_forward(forward, rows / 2, rows);
  expect_close(x, want, roundings, "x");
  const EmbeddingBackward<S> backward{.ids = ids.data(),
                                      .dx = dx.data(),
                                      .dtable = dtable.data(),
                                      .rows = rows,
                                      .width = width,
                                      .scale = scale};
  auto whole = dtable;
  auto at_once = backward;
  at_once.dtable = whole.data();
  embedding_backward(at_once, 0, width);
  embedding_backward(backward, width / 3, width);
  embedding_backward(backward, 0, width / 3);
  EXPECT_TRUE(same_bits(whole, dtable)) << "the cut must not matter";
  expect_close(dtable, want_dtable, 1 + roundings * static_cast<double>(rows), "dtable");
}

TEST_P(EmbeddingTest, AddsPositionsAndScattersBack) {
  for (const int64_t width : {1, 16, 30, 64, 101}) {
    for (const int64_t rows : {0, 1, 13}) {
      for (const double scale : {1.0, std::sqrt(static_cast<double>(width))}) {
        check_embedding<float>(random, rows, width, scale);
        check_embedding<double>(random, rows, width, scale);
      }
      if (HasFatalFailure()) return;
    }
  }
}

struct Optimizer {
  std::vector<float> p, m, v, g;
  std::vector<bf16> copy;
  float clip = 0.25f;

  Optimizer(Philox& random, int64_t n)
      : p(normals<float>(random, n)),
        m(static_cast<size_t>(n)),
        v(static_cast<size_t>(n)),
        g(static_cast<size_t>(n)),
        copy(static_cast<size_t>(n)) {}
  AdamWStep step(int number) {
    return {.parameter = p.data(),
            .first_moment = m.data(),
            .second_moment = v.data(),
            .gradient = g.data(),
            .copy = copy.data(),
            .gradient_scale = &clip,
            .learning_rate = 7e-4,
            .beta1 = 0.95,
            .beta2 = 0.98,
            .epsilon = 1e-8,
            .weight_decay = 0.1,
            .correction1 = 1 - std::pow(0.95, number),
            .correction2 = 1 - std::pow(0.98, number)};
  }
};

TEST_P(AdamWTest, FollowsTheFormulaOverSteps) {
  for (const int64_t n : {1, 15, 16, 100, 1003}) {
    Optimizer o(random, n);
    auto p = widened(o.p);
    std::vector<double> m(p.size()), v(p.size());
    for (int number = 1; number <= 4; ++number) {
      o.g = normals<float>(random, n, 1e-3);
      for (size_t i = 0; i < p.size(); ++i) {
        const double g = widen(o.g[i]) * 0.25;
        m[i] = 0.95 * m[i] + 0.05 * g;
        v[i] = 0.98 * v[i] + 0.02 * g * g;
        const double mean = m[i] / (1 - std::pow(0.95, number)),
                     square = v[i] / (1 - std::pow(0.98, number));
        p[i] -= 7e-4 * (mean / (std::sqrt(square) + 1e-8) + 0.1 * p[i]);
      }
      adamw_step(o.step(number), 0, n);
    }
    expect_close(o.p, p, 4, "parameter");
    expect_close(o.m, m, 8, "first moment");
    expect_close(o.v, v, 8, "second moment");
    for (size_t i = 0; i < p.size(); ++i) EXPECT_EQ(o.copy[i].bits, to_bf16(o.p[i]).bits);
  }
}

TEST_P(AdamWTest, DoesNotDependOnTheCut) {
  Optimizer whole(random, 1000);
  whole.g = normals<float>(random, 1000);
  Optimizer cut = whole;
  adamw_step(whole.step(1), 0, 1000);
  for (const auto& [begin, end] :
       std::vector<std::pair<int64_t, int64_t>>{{333, 1000}, {0, 1}, {1, 333}})
    adamw_step(cut.step(1), begin, end);
  EXPECT_TRUE(same_bits(whole.p, cut.p));
  EXPECT_TRUE(same_bits(whole.m, cut.m));
  EXPECT_TRUE(same_bits(whole.v, cut.v));
}

TEST_P(AdamWTest, ZeroesTheGradientOnlyWhenAsked) {
  Optimizer o(random, 20);
  o.g.assign(20, 1);
  auto step = o.step(1);
  step.copy = nullptr;
  step.gradient_scale = nullptr;
  adamw_step(step, 0, 20);
  EXPECT_EQ(o.g, std::vector<float>(20, 1));
  EXPECT_FLOAT_EQ(o.m[0], 0.05f);
  EXPECT_EQ(o.copy[0].bits, 0) << "no copy was wanted";
  step.zero_gradient = true;
  adamw_step(step, 3, 18);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(o.g[i], i >= 3 && i < 18 ? 0.0f : 1.0f);
}

void check_squares(Philox& random, int64_t n) {
  const auto x = normals<float>(random, n);
  const int64_t blocks = (n + kSquareBlock - 1) / kSquareBlock;
  std::vector<double> partial(static_cast<size_t>(blocks), -1);
  sum_of_squares(x.data(), n, partial.data(), blocks / 2, blocks);
  sum_of_squares(x.data(), n, partial.data(), 0, blocks / 2);
  double got = 0, want = 0;
  for (const double value : partial) got += value;
  for (const float value : x) want += widen(value) * widen(value);
  EXPECT_NEAR(got, want, 1e-13 * want) << n;
}

TEST_P(PassesTest, SumsSquaresInDouble) {
  for (const int64_t n : {0, 1, 17, 1000, 16384, 16385, 50001}) check_squares(random, n);
  const std::vector<float> large(100, 1e30f);  // its square is no fp32
  double partial = 0;
  sum_of_squares(large.data(), 100, &partial, 0, 1);
  EXPECT_NEAR(partial / 1e62, 1, 1e-6);
}

TEST_P(PassesTest, AccumulatesInItsRangeOnly) {
  for (const int64_t n : {1, 16, 70}) {
    const auto x = normals<bf16>(random, n);
    const auto y = normals<float>(random, n);
    const auto before = normals<float>(random, n);
    auto sum = before;
    accumulate(x.data(), sum.data(), 1, n - n / 4);
    accumulate(y.data(), sum.data(), 1, n - n / 4);
    for (int64_t i = 0; i < n; ++i) {
      const auto u = static_cast<size_t>(i);
      const float want = i >= 1 && i < n - n / 4 ? (before[u] + to_float(x[u])) + y[u] : before[u];
      EXPECT_EQ(sum[u], want) << i;
    }
  }
}

POLYSKETCH_EVERY_INSTRUCTION_SET(EmbeddingTest);
POLYSKETCH_EVERY_INSTRUCTION_SET(AdamWTest);
POLYSKETCH_EVERY_INSTRUCTION_SET(PassesTest);

}  // namespace
}  // namespace polysketch::kernels::test
