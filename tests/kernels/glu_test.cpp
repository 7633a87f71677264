// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

using GluTest = KernelTest;

/// 0.5·x·(1 + tanh u) in fp64, in the form that does not cancel for negative x.
double gelu(double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * u));
}
double gelu_slope(double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return 1 / (1 + std::exp(-2 * u)) +
         0.5 * x / std::pow(std::cosh(u), 2) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

template <class A>
struct Case {
  int64_t rows, hidden;
  std::vector<A> in, out, dout, din, again;

  Case(Philox& random, int64_t rows_, int64_t hidden_) : rows(rows_), hidden(hidden_) {
    in = normals<A>(random, rows * 2 * hidden, 2), dout = normals<A>(random, rows * hidden);
    out.resize(dout.size()), again.resize(dout.size()), din.resize(in.size());
  }
  void forward(int64_t begin, int64_t end) {
    glu_forward(GluForward<A>{.in = in.data(), .out = out.data(), .hidden = hidden}, begin, end);
  }
  void backward(int64_t begin, int64_t end) {
    glu_backward(GluBackward<A>{.in = in.data(),
                                .dout = dout.data(),
                                .din = din.data(),
                                .out = again.data(),
                                .hidden = hidden},
                 begin, end);
  }
};

template <class A>
void check(Philox& random, int64_t rows, int64_t hidden) {
  SCOPED_TRACE(testing::Message() << rows << " x " << hidden << ", " << sizeof(A) << " bytes");
  Case<A> c(random, rows, hidden);
  std::vector<double> out(c.out.size()), din(c.in.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < hidden; ++i) {
      const auto linear_at = static_cast<size_t>(row * 2 * hidden + i),
                 gate_at = linear_at + static_cast<size_t>(hidden);
      const auto at = static_cast<size_t>(row * hidden + i);
      const double linear = widen(c.in[linear_at]), gate = widen(c.in[gate_at]),
                   d = widen(c.dout[at]);
      out[at] = linear * gelu(gate);
      din[linear_at] = d * gelu(gate);
      din[gate_at] = d * linear * gelu_slope(gate);
    }
  }
  c.forward(0, rows);
  expect_close(c.out, out, 4, "out");
  c.backward(0, rows);
  expect_close(c.din, din, 6, "din");
  EXPECT_TRUE(same_bits(c.out, c.again));
}

TEST_P(GluTest, MeetsTheDefinitionForEveryShapeAndType) {
  for (const int64_t hidden : {1, 3, 8, 15, 16, 17, 33, 168, 2048}) {
    for (const int64_t rows : {0, 1, 4}) {
      check<float>(random, rows, hidden);
      check<bf16>(random, rows, hidden);
      check<double>(random, rows, hidden);
      if (HasFatalFailure()) return;
    }
  }
}

// Relative, not absolute: also where gelu is tiny.
TEST_P(GluTest, GeluIsAccurateOverTheWholeLine) {
  std::vector<float> in, out(1), din(2);
  const std::vector<float> dout{1};
  for (double gate = -6; gate < 30; gate += 0.00713) {
    in = {1.0f, static_cast<float>(gate)};
    glu_forward(GluForward<float>{.in = in.data(), .out = out.data(), .hidden = 1}, 0, 1);
    const double want = gelu(widen(in[1]));
    const double exponent =
        2 * std::abs(std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate));
    // what rounding the argument of exp alone may cost
    const double conditioning = gate < 0 ? 1 + exponent : 1;
    ASSERT_NEAR(out[0], want, (3e-7 + 6e-8 * 4 * (conditioning - 1)) * std::abs(want) + 1e-37)
        << gate;
    glu_backward(
        GluBackward<float>{.in = in.data(), .dout = dout.data(), .din = din.data(), .hidden = 1}, 0,
        1);
    ASSERT_NEAR(din[1], gelu_slope(widen(in[1])), 6e-7) << gate;
  }
}

TEST_P(GluTest, FarOutItIsTheIdentityOrNothing) {
  const std::vector<float> in{1, 1, 1, 1, 1000, -1000, 1e30f, -1e30f};
  std::vector<float> out(4), din(8);
  const std::vector<float> dout{1, 1, 1, 1};
  glu_forward(GluForward<float>{.in = in.data(), .out = out.data(), .hidden = 4}, 0, 1);
  EXPECT_EQ(out[0], 1000);
  EXPECT_NEAR(out[1], 0, 1e-30);
  glu_backward(
      GluBackward<float>{.in = in.data(), .dout = dout.data(), .din = din.data(), .hidden = 4}, 0,
      1);
  EXPECT_EQ(din[4], 1);
  EXPECT_NEAR(din[5], 0, 1e-25);
}

TEST_P(GluTest, NotANumberIsNotHidden) {
  const std::vector<float> in{1, 1, NAN, 1};
  std::vector<float> out(2);
  glu_forward(GluForward<float>{.in = in.data(), .out = out.data(), .hidden = 2}, 0, 1);
  EXPECT_TRUE(std::isnan(out[0]));
  EXPECT_FALSE(std::isnan(out[1]));
}

TEST_P(GluTest, WorksInPlaceAndInPieces) {
  Case<bf16> apart(random, 5, 53);
  Case<bf16> in_place = apart;
  apart.forward(0, 5);
  apart.backward(0, 5);
  const GluBackward<bf16> arguments{.in = in_place.in.data(),
                                    .dout = in_place.dout.data(),
                                    .din = in_place.in.data(),
                                    .out = in_place.dout.data(),
                                    .hidden = 53};
  glu_backward(arguments, 2, 5);
  glu_backward(arguments, 0, 2);
  EXPECT_TRUE(same_bits(apart.din, in_place.in));
  EXPECT_TRUE(same_bits(apart.out, in_place.dout));
}

TEST_P(GluTest, GradientsAreTheSlopes) {
  Case<double> c(random, 2, 9);
  c.backward(0, 2);
  const auto value = [&] {
    c.forward(0, 2);
    double total = 0;
    for (size_t i = 0; i < c.out.size(); ++i) total += c.out[i] * c.dout[i];
    return total;
  };
  for (size_t i = 0; i < c.in.size(); ++i) EXPECT_NEAR(slope(value, c.in[i]), c.din[i], 1e-8);
}

POLYSKETCH_EVERY_INSTRUCTION_SET(GluTest);

}  // namespace
}  // namespace polysketch::kernels::test
