// SPDX-License-Identifier: Apache-2.0
// What sketches and random features promise beyond what holds for every mechanism.
#include "attention/sketch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>

#include "attention/dense_reference.hpp"
#include "attention/performer.hpp"
#include "helpers/tolerances.hpp"

namespace polysketch {
namespace {

using test::normal;
using test::relative_error;

using Three = std::array<at::Tensor, 3>;

Three random_inputs(int64_t batch, int64_t heads, int64_t length, int64_t width, Philox& random,
                    at::ScalarType type = at::kDouble) {
  Three x;
  for (at::Tensor& part : x) part = normal({batch, heads, length, width}, random, type);
  return x;
}

AttentionConfig sketched(SketchKind sketch, LocalAttention local) {
  AttentionConfig config;
  config.kind = AttentionKind::polysketch;
  config.sketch = sketch;
  config.local = local;
  config.sketch_size = 16;
  return config;
}

TEST(Polysketch, BlocksDoNotMatterWithoutLocalAttention) {
  Philox random(37, RandomPurpose::test);
  for (const SketchKind kind : {SketchKind::random, SketchKind::learned}) {
    const Three x = random_inputs(1, 2, 150, 16, random);
    at::Tensor first;
    test::NamedTensors same;
    for (const int64_t block : {1, 7, 64, 150, 4096}) {
      AttentionConfig config = sketched(kind, LocalAttention::none);
      config.block = block;
      const auto attention = make_attention(config, {2, 16}, at::kDouble);
      for (auto& parameter : attention->parameters()) {
        const at::NoGradGuard no_grad;
        if (same.count(parameter.name)) parameter.value.copy_(same.at(parameter.name));
        same[parameter.name] = parameter.value.detach();
      }
      const at::Tensor y = attention->forward(x[0], x[1], x[2]).detach();
      if (!first.defined()) first = y;
      EXPECT_LE(relative_error(y, first), test::tolerance::kReordered64) << "block " << block;
    }
  }
}

TEST(Polysketch, WithLocalAttentionOneBlockIsExactPolynomialAttention) {
  Philox random(38, RandomPurpose::test);
  AttentionConfig exact;
  exact.kind = AttentionKind::polynomial;
  const Three x = random_inputs(2, 2, 100, 16, random);
  const at::Tensor want = make_attention(exact, {2, 16}, at::kDouble)->forward(x[0], x[1], x[2]);
  for (const SketchKind kind : {SketchKind::random, SketchKind::learned}) {
    const at::Tensor got =
        make_attention(sketched(kind, LocalAttention::exact), {2, 16}, at::kDouble)
            ->forward(x[0], x[1], x[2]);
    EXPECT_LE(relative_error(got, want), test::tolerance::kReordered64);
  }
}

at::Tensor unit(const at::Tensor& x) { return x / x.norm(2, {3}, true); }

/// Mean over draws of s(x)·s(y), and its standard error. x and y have some angle between them.
TEST(Polysketch, RandomSketchesAreUnbiased) {
  Philox random(39, RandomPurpose::test);
  const at::Tensor x = unit(normal({1, 1, 1, 8}, random)),
                   y = unit(normal({1, 1, 1, 8}, random) * 0.05 + x);
  for (const int64_t degree : {2, 4}) {
    const double want = std::pow((x * y).sum().item<double>(), static_cast<double>(degree));
    for (const SketchScale scale : {SketchScale::paper, SketchScale::code}) {
      constexpr int64_t kDraws = 4000, kSize = 8;
      double sum = 0, squares = 0;
      for (int64_t draw = 0; draw < kDraws; ++draw) {
        const auto sketch = make_random_sketch(8, kSize, degree, scale, {5, draw}, at::kDouble);
        const double product = ((*sketch)(x) * (*sketch)(y)).sum().item<double>();
        sum += product;
        squares += product * product;
      }
      const double mean = sum / kDraws,
                   error = std::sqrt((squares / kDraws - mean * mean) / kDraws);
      // The published code divides by R where Algorithm 1 divides by √R, once for each product: 1
      // of degree 2, 3 of degree 4.
      const double factor = scale == SketchScale::paper
                                ? 1
                                : std::pow(static_cast<double>(kSize), degree == 2 ? -1.0 : -3.0);
      EXPECT_NEAR(mean, want * factor, 5 * error) << "degree " << degree;
      EXPECT_LT(error, 0.2 * std::abs(want * factor)) << "too few draws to say anything";
    }
  }
}

/// P Theorem 1.1: the relative Frobenius error of (s(q)·s(k))² against (q·k)⁴ falls like 1/√R.
TEST(Polysketch, ErrorOfRandomSketchesFallsWithTheRootOfTheirSize) {
  Philox random(40, RandomPurpose::test);
  const at::Tensor q = unit(normal({1, 1, 64, 16}, random)),
                   k = unit(normal({1, 1, 64, 16}, random));
  const at::Tensor want = at::matmul(q, k.transpose(2, 3)).pow(4);
  std::vector<double> sizes, errors;
  for (const int64_t size : {8, 16, 32, 64, 128, 256}) {
    constexpr int64_t kDraws = 60;
    double squares = 0;
    for (int64_t draw = 0; draw < kDraws; ++draw) {
      const auto sketch =
          make_random_sketch(16, size, 2, SketchScale::paper, {6, draw}, at::kDouble);
      const at::Tensor got = at::matmul((*sketch)(q), (*sketch)(k).transpose(2, 3)).square();
      // The square of an unbiased estimate has a bias of its own variance, which falls like 1/R:
      // the slope is that of the estimate itself.
      const at::Tensor estimate = at::matmul((*sketch)(q), (*sketch)(k).transpose(2, 3));
      EXPECT_GE(got.min().item<double>(), 0);
      squares += std::pow((estimate - want.sqrt()).norm().item<double>() / q.size(2), 2);
    }
    sizes.push_back(std::log(static_cast<double>(size)));
    errors.push_back(std::log(squares / kDraws) / 2);
  }
  double mean_x = 0, mean_y = 0, xy = 0, xx = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    mean_x += sizes[i] / static_cast<double>(sizes.size());
    mean_y += errors[i] / static_cast<double>(sizes.size());
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    xy += (sizes[i] - mean_x) * (errors[i] - mean_y);
    xx += (sizes[i] - mean_x) * (sizes[i] - mean_x);
  }
  std::printf("slope %.3f\n", xy / xx);
  EXPECT_NEAR(xy / xx, -0.5, 0.1);
}

TEST(Polysketch, DrawsAreAFunctionOfSeedAndLayer) {
  const auto matrix = [](uint64_t seed, int64_t layer) {
    return make_attention(sketched(SketchKind::random, LocalAttention::none), {2, 16}, at::kFloat,
                          {seed, layer})
        ->constants()
        .at(0)
        .value;
  };
  EXPECT_TRUE(matrix(1, 0).equal(matrix(1, 0)));
  EXPECT_FALSE(matrix(1, 0).equal(matrix(1, 1)));
  EXPECT_FALSE(matrix(1, 0).equal(matrix(2, 0)));
}

AttentionConfig performer(int64_t features, Stabiliser stabiliser) {
  AttentionConfig config;
  config.kind = AttentionKind::performer;
  config.features = features;
  config.stabiliser = stabiliser;
  config.block = 32;
  return config;
}

TEST(Performer, FeaturesAreOrthogonalInBlocksWithNormsOfGaussians) {
  const at::Tensor rows = orthogonal_features(64, 16, {3, 2}, 0);
  const at::Tensor products = at::matmul(rows.narrow(0, 16, 16), rows.narrow(0, 16, 16).t());
  EXPECT_LE((products - products.diag().diag()).abs().max().item<double>(), 1e-10);
  EXPECT_NEAR(rows.square().sum(1).mean().item<double>(), 16, 3);
  EXPECT_GT(rows.norm(2, {1}).std().item<double>(), 0.2);
}

/// Both stabilisers stand for the same weights; they differ by what the 1e-6 in the features adds.
TEST(Performer, StabilisersAgree) {
  Philox random(41, RandomPurpose::test);
  Three x = random_inputs(2, 2, 150, 16, random);
  for (at::Tensor& part : x) part = part * 0.3;  // features well above 1e-6
  const Documents documents = test::random_documents(2, 150, random, 50);
  const auto run = [&](Stabiliser stabiliser, const Documents& given) {
    return make_attention(performer(64, stabiliser), {2, 16}, at::kDouble)
        ->forward(x[0], x[1], x[2], given)
        .detach();
  };
  EXPECT_LE(relative_error(run(Stabiliser::causal, {}), run(Stabiliser::paper, {})), 1e-3);
  EXPECT_LE(relative_error(run(Stabiliser::causal, documents), run(Stabiliser::paper, documents)),
            1e-3);
}

TEST(Performer, PaperStabiliserHasNoRecurrentForm) {
  EXPECT_EQ(make_attention(performer(64, Stabiliser::paper), {2, 16})->recurrence(),
            Recurrence::none);
  try {
    (void)make_attention(performer(64, Stabiliser::paper), {2, 16})->initial_state();
    ADD_FAILURE() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    EXPECT_THAT(error.what(), testing::HasSubstr("attention.stabiliser"));
  }
}

TEST(Performer, RedrawsEverySoManySteps) {
  AttentionConfig config = performer(32, Stabiliser::causal);
  config.redraw = 10;
  const auto attention = make_attention(config, {2, 16});
  const auto at_step = [&](int64_t step) {
    attention->at_step(step);
    return attention->constants()[0].value.clone();
  };
  const at::Tensor first = at_step(0);
  EXPECT_TRUE(first.equal(at_step(9)));
  const at::Tensor second = at_step(10);
  EXPECT_FALSE(first.equal(second));
  EXPECT_TRUE(second.equal(at_step(19)));
  EXPECT_TRUE(first.equal(at_step(3)));  // as after a resume
  config.redraw = 0;
  const auto fixed = make_attention(config, {2, 16});
  fixed->at_step(1000);
  EXPECT_TRUE(fixed->constants()[0].value.equal(first));
}

TEST(Attention, SizesThatAKindDoesNotKnowAreRefused) {
  AttentionConfig odd = sketched(SketchKind::random, LocalAttention::none);
  odd.degree = 6;
  AttentionConfig uneven;
  uneven.kind = AttentionKind::hedgehog;
  uneven.features = 33;
  for (const auto& [config, key] :
       {std::pair(odd, "attention.degree"), std::pair(uneven, "attention.features")}) {
    try {
      (void)make_attention(config, {2, 16});
      ADD_FAILURE() << key;
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::config);
      EXPECT_THAT(error.what(), testing::HasSubstr(key));
    }
  }
}

}  // namespace
}  // namespace polysketch
