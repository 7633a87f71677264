// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/kernel_test.hpp"

namespace polysketch::kernels::test {
namespace {

using CrossEntropyTest = KernelTest;

template <class A>
struct Case {
  int64_t rows, vocabulary, stride;
  std::vector<A> logits;
  std::vector<Real<A>> bias, loss, dbias;
  std::vector<int64_t> targets;
  Real<A> scale = static_cast<Real<A>>(0.37);

  Case(Philox& random, int64_t rows_, int64_t vocabulary_, double spread = 3)
      : rows(rows_), vocabulary(vocabulary_), stride(vocabulary_ + 3) {
    logits = normals<A>(random, rows * stride, spread), bias = normals<Real<A>>(random, vocabulary);
    dbias = normals<Real<A>>(random, vocabulary);
    loss.resize(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r)
      targets.push_back(static_cast<int64_t>(random.bounded(static_cast<uint64_t>(vocabulary))));
  }
  CrossEntropy<A> arguments() {
    return {.logits = logits.data(),
            .row_stride = stride,
            .bias = bias.data(),
            .targets = targets.data(),
            .loss = loss.data(),
            .dbias = dbias.data(),
            .scale = scale,
            .vocabulary = vocabulary};
  }
};

struct Reference {
  std::vector<double> loss, gradient, dbias;
};
template <class A>
Reference reference(const Case<A>& c) {
  Reference r{{}, widened(c.logits), widened(c.dbias)};
  for (int64_t row = 0; row < c.rows; ++row) {
    double* z = r.gradient.data() + row * c.stride;
    const auto target = c.targets[static_cast<size_t>(row)];
    if (target < 0) {
      r.loss.push_back(0);
      std::fill(z, z + c.vocabulary, 0.0);
      continue;
    }
    double greatest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < c.vocabulary; ++j)
      z[j] += static_cast<double>(c.bias[static_cast<size_t>(j)]),
          greatest = std::max(greatest, z[j]);
    for (int64_t j = 0; j < c.vocabulary; ++j) sum += std::exp(z[j] - greatest);
    r.loss.push_back(std::log(sum) + greatest - z[target]);
    for (int64_t j = 0; j < c.vocabulary; ++j) {
      z[j] =
          (std::exp(z[j] - greatest) / sum - (j == target ? 1 : 0)) * static_cast<double>(c.scale);
      r.dbias[static_cast<size_t>(j)] += z[j];
    }
  }
  return r;
}

template <class A>
void check(Philox& random, int64_t rows, int64_t vocabulary, double spread) {
  SCOPED_TRACE(testing::Message() << rows << " x " << vocabulary << ", spread " << spread << ", "
                                  << sizeof(A) << " bytes");
  Case<A> c(random, rows, vocabulary, spread);
  if (rows > 2) c.targets[1] = -1;
  const Reference want = reference(c);
  auto only = c;
  cross_entropy_loss(only.arguments(), 0, rows);
  EXPECT_TRUE(same_bits(only.logits, c.logits)) << "the loss alone must not write the logits";
  // A logit of size s carries an error of s roundings into exp, so the bound grows with the spread.
  const double units = 20 + 12 * spread;
  expect_close(only.loss, want.loss, units, "loss alone", 1);
  cross_entropy(c.arguments(), 0, rows);
  expect_close(c.loss, want.loss, units, "loss", 1);
  // its scale includes the untouched padding behind each row
  expect_close(c.logits, want.gradient, units, "gradient");
  expect_close(c.dbias, want.dbias, units, "dbias");
}

TEST_P(CrossEntropyTest, MeetsTheDefinitionForEveryShapeAndType) {
  for (const int64_t vocabulary : {1, 2, 15, 17, 1000, 1023, 1024, 1025, 2049, 5001}) {
    for (const int64_t rows : {0, 1, 4}) {
      for (const double spread : {0.5, 10.0}) {
        check<float>(random, rows, vocabulary, spread);
        check<bf16>(random, rows, vocabulary, spread);
        check<double>(random, rows, vocabulary, spread);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Small entries too, relative to themselves: no bound by the greatest one hides them.
TEST_P(CrossEntropyTest, EveryProbabilityIsAccurate) {
  Case<float> c(random, 2, 3000, 4);
  const Reference want = reference(c);
  cross_entropy(c.arguments(), 0, 2);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t j = 0; j < 3000; ++j) {
      const auto i = static_cast<size_t>(row * c.stride + j);
      ASSERT_NEAR(c.logits[i], want.gradient[i], 5e-6 * std::abs(want.gradient[i]))
          << row << ", " << j;
    }
  }
}

// The running maximum moves from block to block, in both directions, over a wide range.
TEST_P(CrossEntropyTest, FollowsRisingAndFallingLogits) {
  for (const double direction : {1.0, -1.0}) {
    Case<float> c(random, 1, 6000);
    for (int64_t j = 0; j < 6000; ++j)
      c.logits[static_cast<size_t>(j)] =
          static_cast<float>(direction * static_cast<double>(j) / 20 + 500);
    c.targets[0] = direction > 0 ? 5990 : 10;
    const Reference want = reference(c);
    cross_entropy(c.arguments(), 0, 1);
    expect_close(c.loss, want.loss, 4000, "loss");
    for (size_t j = 0; j < 6000; ++j)
      ASSERT_NEAR(c.logits[j], want.gradient[j], 2e-4 * std::abs(want.gradient[j]) + 1e-37) << j;
  }
}

TEST_P(CrossEntropyTest, WithoutBiasAndItsGradient) {
  Case<bf16> with(random, 3, 700);
  with.bias.assign(700, 0);
  Case<bf16> without = with;
  cross_entropy(with.arguments(), 0, 3);
  auto arguments = without.arguments();
  arguments.bias = nullptr, arguments.dbias = nullptr;
  cross_entropy(arguments, 0, 3);
  EXPECT_TRUE(same_bits(with.logits, without.logits));
  EXPECT_TRUE(same_bits(with.loss, without.loss));
}

TEST_P(CrossEntropyTest, RowsDoNotDependOnTheCut) {
  Case<bf16> whole(random, 7, 1300);
  Case<bf16> cut = whole;
  cross_entropy(whole.arguments(), 0, 7);
  cross_entropy(cut.arguments(), 3, 7);
  cross_entropy(cut.arguments(), 0, 3);
  EXPECT_TRUE(same_bits(whole.logits, cut.logits));
  EXPECT_TRUE(same_bits(whole.loss, cut.loss));
}

TEST_P(CrossEntropyTest, ExtremeLogits) {
  Case<float> c(random, 2, 5);
  c.bias.assign(5, 0);
  c.logits = {1e4f, -1e4f, 0, -INFINITY, 1e4f, 7, 7, 7, NAN, 1, 2, 3, 4, 5, 6, 7};
  c.targets = {0, 1};
  cross_entropy(c.arguments(), 0, 2);
  EXPECT_NEAR(c.loss[0], std::log(2.0), 1e-6);
  EXPECT_NEAR(c.logits[0], -0.5 * 0.37, 1e-6);
  EXPECT_NEAR(c.logits[4], 0.5 * 0.37, 1e-6);
  EXPECT_EQ(c.logits[3], 0);
  EXPECT_TRUE(std::isnan(c.loss[1])) << "a logit that is not a number must show in the loss";
}

// Lanes past the end of the row hold zeros, which here would be the greatest by far.
TEST_P(CrossEntropyTest, LogitsFarBelowZero) {
  Case<float> c(random, 1, 5);
  c.bias.assign(5, 0);
  c.logits.assign(8, -1000);
  cross_entropy(c.arguments(), 0, 1);
  EXPECT_NEAR(c.loss[0], std::log(5.0), 1e-6);
}

TEST_P(CrossEntropyTest, GradientsAreTheSlopes) {
  Case<double> c(random, 2, 23);
  c.dbias.assign(23, 0);
  const auto logits = c.logits;
  cross_entropy(c.arguments(), 0, 2);
  const auto gradient = c.logits;
  c.logits = logits;
  const auto value = [&] {
    cross_entropy_loss(c.arguments(), 0, 2);
    return (c.loss[0] + c.loss[1]) * c.scale;
  };
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t j = 0; j < 23; ++j) {
      const auto i = static_cast<size_t>(row * c.stride + j);
      EXPECT_NEAR(slope(value, c.logits[i]), gradient[i], 1e-8);
    }
  }
  for (size_t j = 0; j < 23; ++j) EXPECT_NEAR(slope(value, c.bias[j]), c.dbias[j], 1e-8);
}

POLYSKETCH_EVERY_INSTRUCTION_SET(CrossEntropyTest);

}  // namespace
}  // namespace polysketch::kernels::test
