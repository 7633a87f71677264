// SPDX-License-Identifier: Apache-2.0
// Every mechanism against its dense form in fp64 (method.md §2, §6).
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "attention/attention.hpp"
#include "attention/dense_reference.hpp"
#include "attention/mechanisms.hpp"
#include "helpers/tolerances.hpp"

namespace polysketch {
namespace {

using test::Mechanism;
using test::normal;
using test::relative_error;

using Three = std::array<at::Tensor, 3>;

Three random_inputs(int64_t batch, int64_t heads, int64_t length, int64_t width, Philox& random,
                    at::ScalarType type = at::kDouble) {
  Three x;
  for (at::Tensor& part : x) part = normal({batch, heads, length, width}, random, type);
  return x;
}

/// Learned tensors away from where they start, so that gains and biases matter.
void disturb(Attention& attention, Philox& random) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : attention.parameters()) {
    parameter.value.add_(normal(parameter.value.sizes(), random, parameter.value.scalar_type()) *
                         0.1);
  }
}

class Dense : public testing::TestWithParam<Mechanism> {
 protected:
  void SetUp() override {
    at::manual_seed(1);
  }  // learned tensors begin the same, whatever ran before
};
INSTANTIATE_TEST_SUITE_P(All, Dense, testing::ValuesIn(test::mechanisms()),
                         [](const auto& tested) { return tested.param.name; });

int64_t pick(Philox& random, std::initializer_list<int64_t> values) {
  return *(values.begin() + static_cast<std::ptrdiff_t>(random.bounded(values.size())));
}

/// Outputs and all gradients of `attention` in its own type and of the dense form in fp64, the
/// worst relative error of both kinds.
struct Errors {
  double output = 0, gradient = 0;
  std::string worst;
};
Errors against_dense(const AttentionConfig& config, Attention& attention, const Three& inputs,
                     const at::Tensor& cotangent, const Documents& documents) {
  Three x, wide;
  for (size_t i = 0; i < 3; ++i) {
    x[i] = inputs[i].detach().clone().requires_grad_();
    wide[i] = inputs[i].detach().to(at::kDouble).requires_grad_();
  }
  test::NamedTensors parameters;
  for (auto& parameter : attention.parameters()) {
    parameter.value.mutable_grad() = at::Tensor();
    parameters[parameter.name] = parameter.value.detach().to(at::kDouble).requires_grad_();
  }
  for (auto& constant : attention.constants())
    parameters[constant.name] = constant.value.to(at::kDouble);
  const at::Tensor got = attention.forward(x[0], x[1], x[2], documents);
  const at::Tensor want =
      test::dense_attention(config, parameters, wide[0], wide[1], wide[2], documents);
  got.backward(cotangent);
  want.backward(cotangent.to(at::kDouble));
  Errors errors;
  errors.output = relative_error(got.detach(), want.detach());
  const auto compare = [&](const at::Tensor& gradient, const at::Tensor& reference,
                           const std::string& name) {
    if (!reference.defined() || reference.abs().max().item<double>() < 1e-12) {  // no influence
      if (gradient.defined()) {
        EXPECT_LE(gradient.abs().max().item<double>(), 1e-6) << name;
      }
      return;
    }
    ASSERT_TRUE(gradient.defined()) << name;
    // Where rows give nearly all their weight to one key, gradients are small differences of large
    // numbers: those of the cotangent's size.
    const double scale =
        reference.norm().item<double>() + 1e-5 * cotangent.to(at::kDouble).norm().item<double>();
    const double error = (gradient.to(at::kDouble) - reference).norm().item<double>() / scale;
    if (!(error <= errors.gradient)) {
      errors.gradient = error;
      errors.worst = name;
    }
  };
  const std::array<const char*, 3> names{"q", "k", "v"};
  for (size_t i = 0; i < 3; ++i) compare(x[i].grad(), wide[i].grad(), names[i]);
  for (auto& parameter : attention.parameters())
    compare(parameter.value.grad(), parameters.at(parameter.name).grad(), parameter.name);
  return errors;
}

TEST_P(Dense, RandomShapesInDouble) {
  Philox random(31, RandomPurpose::test, std::hash<std::string>{}(GetParam().name));
  for (int trial = 0; trial < 14; ++trial) {
    AttentionConfig config = GetParam().config;
    config.block = pick(random, {1, 5, 16, 33, 64, 1000});
    config.window = pick(random, {1, 7, 32, 1000});
    config.sketch_size = pick(random, {4, 8, 12});
    const int64_t batch = pick(random, {1, 2}), heads = pick(random, {1, 3}),
                  width = pick(random, {8, 16});
    const int64_t length = pick(random, {1, 2, 31, 64, 65, 100, 147});
    const auto attention = make_attention(config, {heads, width}, at::kDouble, {7, trial});
    disturb(*attention, random);
    const Documents documents =
        random.bounded(2) == 0 ? Documents() : test::random_documents(batch, length, random, 40);
    const Three x = random_inputs(batch, heads, length, width, random);
    const Errors errors =
        against_dense(config, *attention, x, normal(x[0].sizes(), random), documents);
    const std::string what = fmt::format(
        "B {} H {} T {} D {} b {} W {} R {}{}", batch, heads, length, width, config.block,
        config.window, config.sketch_size, documents.defined() ? " documents" : "");
    EXPECT_LE(errors.output, test::tolerance::kReordered64) << what;
    EXPECT_LE(errors.gradient, 10 * test::tolerance::kReordered64) << what << ", " << errors.worst;
  }
}

TEST_P(Dense, SingleAndBrain) {
  Philox random(32, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    AttentionConfig config = GetParam().config;
    config.block = 128;
    config.sketch_size = 32;
    const auto attention = make_attention(config, {2, 64}, at::kFloat, {7, 1});
    const Three x = random_inputs(2, 2, 500, 64, random, type);
    const Errors errors =
        against_dense(config, *attention, x, normal(x[0].sizes(), random, type), {});
    const bool brain = type == at::kBFloat16;
    const bool steep = config.kind == AttentionKind::polysketch && config.degree == 8;
    EXPECT_LE(errors.output, !brain  ? test::tolerance::kSingle
                             : steep ? test::tolerance::kBrainDegree8
                                     : test::tolerance::kBrain)
        << type;
    EXPECT_LE(errors.gradient,
              brain ? test::tolerance::kBrainFewRows : 10 * test::tolerance::kSingle)
        << type << ", " << errors.worst;
  }
}

/// The processor's kernels work on tiles; a block may end anywhere in one.
TEST_P(Dense, BlocksOfAnyLengthThroughTheProcessorsKernels) {
  Philox random(38, RandomPurpose::test);
  for (const int64_t block : {37, 131}) {
    AttentionConfig config = GetParam().config;
    config.block = config.window = block;
    config.sketch_size = 32;
    const auto attention = make_attention(config, {2, 64}, at::kFloat, {7, 1});
    const Three x = random_inputs(1, 2, 200, 64, random, at::kFloat);
    const Errors errors =
        against_dense(config, *attention, x, normal(x[0].sizes(), random, at::kFloat), {});
    EXPECT_LE(errors.output, test::tolerance::kSingle) << block;
    EXPECT_LE(errors.gradient, 10 * test::tolerance::kSingle) << block << ", " << errors.worst;
  }
}

TEST_P(Dense, GradientsByCentralDifferences) {
  Philox random(33, RandomPurpose::test);
  AttentionConfig config = GetParam().config;
  config.block = 3;
  config.window = 3;
  config.sketch_size = 8;  // norms over fewer numbers bend too sharply for finite differences
  config.features = config.features == 0 ? 0 : 8;
  const auto attention = make_attention(config, {2, 4}, at::kDouble);
  disturb(*attention, random);
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& part : random_inputs(1, 2, 8, 4, random))
    leaves.push_back(part.requires_grad_());
  for (auto& parameter : attention->parameters()) leaves.push_back(parameter.value);
  const at::Tensor cotangent = normal({1, 2, 8, 4}, random);
  const auto loss = [&] {
    return (attention->forward(leaves[0], leaves[1], leaves[2]) * cotangent).sum();
  };
  loss().backward();
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < leaves.size(); ++i) {
    // Along one random direction: every entry has a part in it.
    const at::Tensor direction = normal(leaves[i].sizes(), random),
                     start = leaves[i].detach().clone();
    const auto value_at = [&](double step) {
      const at::NoGradGuard no_grad;
      leaves[i].copy_(start + direction * step);
      const double value = loss().item<double>();
      leaves[i].copy_(start);
      return value;
    };
    // Of fourth order: norms over three numbers bend sharply.
    const double numeric =
        (8 * (value_at(kStep) - value_at(-kStep)) - (value_at(2 * kStep) - value_at(-2 * kStep))) /
        (12 * kStep);
    const double given =
        leaves[i].grad().defined() ? (leaves[i].grad() * direction).sum().item<double>() : 0;
    EXPECT_NEAR(given, numeric, test::tolerance::kCentralDifference * (1 + std::abs(numeric)))
        << "tensor " << i;
  }
}

TEST_P(Dense, RecurrentFormEqualsTheParallelOne) {
  Philox random(34, RandomPurpose::test);
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto attention =
        make_attention(GetParam().config, {2, 16}, type == at::kDouble ? at::kDouble : at::kFloat);
    disturb(*attention, random);
    const int64_t length = 150;
    const Three x = random_inputs(2, 2, length, 16, random, type);
    const at::NoGradGuard no_grad;
    const at::Tensor want = attention->forward(x[0], x[1], x[2]);
    for (const std::vector<int64_t>& pieces :
         {std::vector<int64_t>{150}, {1, 1, 1, 30, 1, 60, 56}, std::vector<int64_t>(150, 1)}) {
      const auto state = attention->initial_state();
      std::vector<at::Tensor> parts;
      int64_t begin = 0;
      for (const int64_t n : pieces) {
        const auto part = [&](const at::Tensor& t) { return t.narrow(2, begin, n); };
        parts.push_back(n == 1 ? attention->step(*state, part(x[0]), part(x[1]), part(x[2]))
                               : attention->prefill(*state, part(x[0]), part(x[1]), part(x[2])));
        begin += n;
      }
      const double bound = type == at::kDouble  ? test::tolerance::kReordered64
                           : type == at::kFloat ? test::tolerance::kSingle
                                                : test::tolerance::kBrain;
      EXPECT_LE(relative_error(at::cat(parts, 2), want), bound)
          << type << ", " << pieces.size() << " pieces";
      EXPECT_GT(state->bytes(), 0);
    }
    EXPECT_THROW(attention->step(*attention->initial_state(), x[0], x[1], x[2]), ShapeError);
  }
}

TEST_P(Dense, StateGrowsAsItSays) {
  Philox random(35, RandomPurpose::test);
  const auto attention = make_attention(GetParam().config, {1, 8});
  const auto bytes_after = [&](int64_t tokens) {
    const auto state = attention->initial_state();
    const Three x = random_inputs(1, 1, tokens, 8, random, at::kFloat);
    (void)attention->prefill(*state, x[0], x[1], x[2]);
    return state->bytes();
  };
  // softmax and polynomial attention look at every key.
  if (attention->recurrence() == Recurrence::growing) {
    EXPECT_GT(bytes_after(800), 2 * bytes_after(200));
  } else {
    EXPECT_EQ(bytes_after(200), bytes_after(800));
  }
}

TEST_P(Dense, LargeInputsStayFinite) {
  Philox random(36, RandomPurpose::test);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto attention = make_attention(GetParam().config, {2, 64});
    Three x = random_inputs(1, 2, 200, 64, random, type);
    for (at::Tensor& part : x) part = (part * 100).detach().requires_grad_();
    const at::Tensor y = attention->forward(x[0], x[1], x[2]);
    y.backward(normal(y.sizes(), random, type));
    EXPECT_TRUE(y.isfinite().all().item<bool>()) << type;
    for (const at::Tensor& part : x) EXPECT_TRUE(part.grad().isfinite().all().item<bool>()) << type;
    for (auto& parameter : attention->parameters()) {
      const at::Tensor& gradient = parameter.value.grad();
      EXPECT_TRUE(!gradient.defined() || gradient.isfinite().all().item<bool>()) << parameter.name;
    }
  }
}

TEST_P(Dense, ZerosGiveNumbers) {
  const auto attention = make_attention(GetParam().config, {1, 16});
  const at::Tensor zeros = at::zeros({1, 1, 100, 16});
  const at::Tensor v = at::ones({1, 1, 100, 16});
  const at::Tensor y = attention->forward(zeros, zeros, v);
  EXPECT_FALSE(y.isnan().any().item<bool>());
  const AttentionKind kind = GetParam().config.kind;
  const bool sums_to_one = kind != AttentionKind::polynomial &&
                           kind != AttentionKind::local_polynomial &&
                           kind != AttentionKind::polysketch;
  // The "1 + row sum" kinds give all their weight to nothing.
  EXPECT_LE((y - (sums_to_one ? v : at::zeros_like(v))).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace polysketch
