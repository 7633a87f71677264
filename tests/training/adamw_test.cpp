// SPDX-License-Identifier: Apache-2.0
#include "training/adamw.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "attention/ops/choice.hpp"
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
  std::optional<ops::ForcedOperations> forced_{
      GetParam() ? std::optional<ops::ForcedOperations>(std::in_place, "aten") : std::nullopt};
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

}  // namespace
}  // namespace polysketch
