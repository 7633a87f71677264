// SPDX-License-Identifier: Apache-2.0
#include "training/adamw.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "model/ops.hpp"
#include "training/train_state.hpp"

namespace polysketch {
namespace {

struct Fixture {
  Parameters parameters;
  size_t matrix, vector;
  Fixture(at::ScalarType compute, at::ScalarType wide) {
    matrix = parameters.add("matrix", {7, 9}, Initializer::lecun_normal, true);
    vector = parameters.add("vector", {33}, Initializer::ones, false);
    parameters.allocate(at::kCPU, compute, wide);
    parameters.initialize(4);
  }
  void set_gradient(int64_t update) {
    for (const size_t i : {matrix, vector}) {
      at::Tensor g = parameters.gradient(i);
      g.copy_((at::arange(g.numel(), at::kDouble) * 0.37 + static_cast<double>(update))
                  .sin()
                  .view(g.sizes()));
    }
  }
};

OptimizerConfig configuration(double clip) {
  OptimizerConfig config;
  config.clip = clip;
  config.weight_decay = 0.1;
  return config;
}

/// The formula of docs/method.md §4 in long double, one number at a time.
struct Reference {
  long double p, m = 0, v = 0;
  void step(long double g, double rate, const OptimizerConfig& c, bool decay, int64_t update) {
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const long double m_hat = m / (1 - std::pow(static_cast<long double>(c.beta1), update));
    const long double v_hat = v / (1 - std::pow(static_cast<long double>(c.beta2), update));
    p -= rate * (m_hat / (std::sqrt(v_hat) + c.epsilon) + (decay ? c.weight_decay * p : 0));
  }
};

/// false: the kernels; true: what serves other devices.
class AdamWTest : public testing::TestWithParam<bool> {
  at::NoGradGuard no_grad_;
  std::optional<ops::ForceGeneric> generic_{
      GetParam() ? std::optional<ops::ForceGeneric>(std::in_place) : std::nullopt};
};
INSTANTIATE_TEST_SUITE_P(Ways, AdamWTest, testing::Bool(),
                         [](const auto& way) { return way.param ? "generic" : "kernels"; });

TEST_P(AdamWTest, TenUpdatesFollowTheFormula) {
  for (const double clip : {0.0, 1.0}) {
    for (const auto wide : {at::kFloat, at::kDouble}) {
      Fixture fixture(wide, wide);
      AdamW optimizer(fixture.parameters, configuration(clip));
      at::Tensor& master = fixture.parameters.flat_master();
      std::vector<Reference> reference;
      for (int64_t i = 0; i < master.numel(); ++i) reference.push_back({master[i].item<double>()});
      for (int64_t update = 1; update <= 10; ++update) {
        fixture.set_gradient(update);
        const at::Tensor gradient = fixture.parameters.flat_gradient().to(at::kDouble);
        const double norm = gradient.norm().item<double>();
        const double scale = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1;
        for (int64_t i = 0; i < master.numel(); ++i) {
          reference[static_cast<size_t>(i)].step(gradient[i].item<double>() * scale, 1e-2,
                                                 configuration(clip), i < 64, update);
        }
        const at::Tensor measured = optimizer.gradient_norm();
        EXPECT_NEAR(measured.item<double>(), norm, 1e-6 * norm);
        optimizer.apply(1e-2, update, measured);
        EXPECT_EQ(fixture.parameters.flat_gradient().abs().max().item<double>(), 0)
            << "gradients are left zero";
      }
      // fp32: a rounding of 2^-24 an update, on values of about one.
      const double bound = wide == at::kFloat ? 2e-6 : 1e-12;
      for (int64_t i = 0; i < master.numel(); ++i) {
        EXPECT_NEAR(master[i].item<double>(),
                    static_cast<double>(reference[static_cast<size_t>(i)].p), bound);
      }
    }
  }
}

TEST_P(AdamWTest, WritesTheCopiesThatCompute) {
  Fixture fixture(at::kBFloat16, at::kFloat);
  AdamW optimizer(fixture.parameters, configuration(1));
  fixture.set_gradient(1);
  optimizer.apply(0.1, 1, optimizer.gradient_norm());
  EXPECT_TRUE(
      fixture.parameters.flat_compute().equal(fixture.parameters.flat_master().to(at::kBFloat16)));
}

TEST_P(AdamWTest, ANormThatIsNotFiniteChangesNothing) {
  for (const double bad : {NAN, INFINITY}) {
    for (const auto wide : {at::kFloat, at::kDouble}) {
      Fixture fixture(wide, wide);
      AdamW optimizer(fixture.parameters, configuration(1));
      fixture.set_gradient(1);
      fixture.parameters.gradient(fixture.vector)[5].fill_(bad);
      const at::Tensor before = fixture.parameters.flat_master().clone();
      optimizer.apply(0.1, 1, optimizer.gradient_norm());
      EXPECT_TRUE(fixture.parameters.flat_master().equal(before));
      EXPECT_EQ(optimizer.first_moment().abs().max().item<double>(), 0);
    }
  }
}

TEST(TrainState, SurvivesJson) {
  TrainState state;
  state.step = 12;
  state.sequences = int64_t{1} << 40;
  state.tokens = int64_t{1} << 50;
  state.digest = 0xfedcba9876543210u;
  state.evaluations["perplexity"] = {10, 3.25, 8};
  const TrainState again = TrainState::from_json(nlohmann::json::parse(state.to_json().dump()));
  EXPECT_EQ(again.step, state.step);
  EXPECT_EQ(again.sequences, state.sequences);
  EXPECT_EQ(again.tokens, state.tokens);
  EXPECT_EQ(again.digest, state.digest);
  const EvaluationState& measured = again.evaluations.at("perplexity");
  EXPECT_EQ(measured.last_step, 10);
  EXPECT_EQ(measured.best_value, 3.25);
  EXPECT_EQ(measured.best_step, 8);
  // a validation that was not finite must not make the checkpoint unloadable
  state.evaluations["perplexity"].best_value = NAN;
  EXPECT_TRUE(std::isnan(TrainState::from_json(nlohmann::json::parse(state.to_json().dump()))
                             .evaluations.at("perplexity")
                             .best_value));
}

TEST(TrainState, IsReadFromWhatEarlierVersionsWrote) {
  const char* text = R"({"step": 12, "sequences": 48, "tokens": 6144, "token_digest": "00ff",
                         "last_validation": 10, "best_loss": 3.25})";
  const TrainState state = TrainState::from_json(nlohmann::json::parse(text));
  EXPECT_EQ(state.digest, 255u);
  EXPECT_EQ(state.evaluations.at("perplexity").last_step, 10);
  EXPECT_EQ(state.evaluations.at("perplexity").best_value, 3.25);
  EXPECT_EQ(state.evaluations.at("perplexity").best_step, -1);
  const char* none = R"({"step": 2, "sequences": 8, "tokens": 1024, "token_digest": "00ff",
                         "last_validation": -1, "best_loss": 0.0})";
  EXPECT_TRUE(TrainState::from_json(nlohmann::json::parse(none)).evaluations.empty());
}

TEST(TrainState, KnowsWhatIsDue) {
  TrainState state;
  const auto due = [&](int64_t step, int64_t every) {
    state.step = step;
    return state.is_due("perplexity", every, 25);
  };
  EXPECT_FALSE(due(0, 10));
  EXPECT_TRUE(due(10, 10));
  EXPECT_FALSE(due(11, 10));
  EXPECT_TRUE(due(25, 10)) << "the last step is measured";
  EXPECT_FALSE(due(25, 0));
  state.evaluations["perplexity"].note(20, 3.0);
  EXPECT_FALSE(due(20, 10)) << "it has been measured there";
  EXPECT_TRUE(due(25, 10));
}

TEST(EvaluationState, KeepsTheBest) {
  EvaluationState state;
  state.note(10, NAN);
  EXPECT_TRUE(std::isnan(state.best_value));
  state.note(20, 4.0);
  state.note(30, 3.0);
  state.note(40, 3.5);
  state.note(50, NAN);
  EXPECT_EQ(state.best_value, 3.0);
  EXPECT_EQ(state.best_step, 30);
  EXPECT_EQ(state.last_step, 50);
}

}  // namespace
}  // namespace polysketch
