// SPDX-License-Identifier: Apache-2.0
#include "attention/attention.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "attention/dense_reference.hpp"
#include "attention/each_instruction_set.hpp"
#include "attention/mechanisms.hpp"
#include "device/allocation_meter.hpp"
#include "helpers/tolerances.hpp"

// What holds for every mechanism of tests/attention/mechanisms.hpp.

namespace polysketch {
namespace {

using test::normal;
using test::relative_error;

using test::Mechanism;

AttentionConfig polynomial_of_degree(int64_t degree) {
  AttentionConfig config;
  config.kind = AttentionKind::polynomial;
  config.degree = degree;
  return config;
}

class EachMechanism
    : public testing::TestWithParam<std::tuple<Mechanism, kernels::InstructionSet>> {
 protected:
  void SetUp() override {
    if (!kernels::is_supported(set()))
      GTEST_SKIP() << "this machine has no " << kernels::name(set());
    scope_.emplace(set());
  }

  static const Mechanism& mechanism() { return std::get<0>(GetParam()); }
  static kernels::InstructionSet set() { return std::get<1>(GetParam()); }
  static std::unique_ptr<Attention> make(int64_t heads, int64_t width, at::ScalarType type) {
    return make_attention(mechanism().config, {heads, width},
                          at::TensorOptions(type == at::kDouble ? at::kDouble : at::kFloat));
  }

 private:
  std::optional<test::InstructionSetScope> scope_;
};
INSTANTIATE_TEST_SUITE_P(All, EachMechanism,
                         testing::Combine(testing::ValuesIn(test::mechanisms()),
                                          test::instruction_sets()),
                         [](const auto& tested) {
                           return std::get<0>(tested.param).name + "_" +
                                  std::string(kernels::name(std::get<1>(tested.param)));
                         });

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kDouble};

TEST_P(EachMechanism, LaterTokensLeaveEarlierOutputsBitEqual) {
  Philox random(11, RandomPurpose::test);
  for (const at::ScalarType type : kTypes) {
    constexpr int64_t kLength = 211;
    const auto attention = make(2, 32, type);
    std::array<at::Tensor, 3> x;
    for (auto& part : x) part = normal({2, 2, kLength, 32}, random, type);
    const at::Tensor before = attention->forward(x[0], x[1], x[2]);
    for (const int64_t t : {0, 1, 7, 63, 64, 100, 192, 210}) {
      std::array<at::Tensor, 3> changed;
      for (size_t i = 0; i < x.size(); ++i) {
        changed[i] = x[i].clone();
        changed[i]
            .narrow(2, t, kLength - t)
            .copy_(normal({2, 2, kLength - t, 32}, random, type) * 3);
      }
      const at::Tensor after = attention->forward(changed[0], changed[1], changed[2]);
      EXPECT_TRUE(before.narrow(2, 0, t).equal(after.narrow(2, 0, t)))
          << "token " << t << ", " << type;
      EXPECT_FALSE(before.narrow(2, t, 1).equal(after.narrow(2, t, 1)))
          << "token " << t << ", " << type;
    }
  }
}

TEST_P(EachMechanism, DocumentsEqualSeparatePasses) {
  Philox random(12, RandomPurpose::test);
  for (const at::ScalarType type : kTypes) {
    const int64_t batch = 2, heads = 2, length = 230, width = 32;
    const auto attention = make(heads, width, type);
    const Documents documents = test::random_documents(batch, length, random, 40);
    std::array<at::Tensor, 3> packed, apart;
    for (size_t i = 0; i < packed.size(); ++i) {
      packed[i] = normal({batch, heads, length, width}, random, type).requires_grad_();
      apart[i] = packed[i].detach().clone().requires_grad_();
    }
    const at::Tensor cotangent = normal({batch, heads, length, width}, random, type);
    const at::Tensor together = attention->forward(packed[0], packed[1], packed[2], documents);
    together.backward(cotangent);
    const auto parameters = attention->parameters();
    std::vector<at::Tensor> parameter_gradients;
    for (const auto& p : parameters) {
      parameter_gradients.push_back(p.value.grad().defined() ? p.value.grad().clone()
                                                             : at::zeros_like(p.value));
      if (p.value.grad().defined()) p.value.grad().zero_();
    }
    const double bound = type == at::kDouble  ? test::tolerance::kReordered64
                         : type == at::kFloat ? test::tolerance::kSingle
                                              : test::tolerance::kReorderedBrain;
    for (int64_t b = 0; b < batch; ++b) {
      int64_t start = 0;
      for (const int64_t n : documents.lengths()[static_cast<size_t>(b)]) {
        const auto part = [&](const at::Tensor& x) {
          return x.narrow(0, b, 1).narrow(2, start, n);
        };
        const at::Tensor alone = attention->forward(part(apart[0]), part(apart[1]), part(apart[2]));
        EXPECT_LE(relative_error(part(together), alone), bound)
            << "row " << b << ", document at " << start << ", " << type;
        alone.backward(part(cotangent));
        start += n;
      }
      EXPECT_EQ(start, length);
    }
    for (size_t i = 0; i < packed.size(); ++i)
      EXPECT_LE(relative_error(packed[i].grad(), apart[i].grad()), bound)
          << "gradient " << i << ", " << type;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor grad = parameters[i].value.grad();
      if (!grad.defined()) continue;  // no part in texts this short
      // Sums over rows are rounded to bf16 a piece at a time, and the pieces are others.
      const double wider = type == at::kBFloat16 ? test::tolerance::kBrain : bound;
      EXPECT_LE(relative_error(parameter_gradients[i], grad), wider)
          << parameters[i].name << ", " << type;
    }
  }
}

TEST_P(EachMechanism, WhatIsNotFiniteStaysInItsRowAndLaterOnes) {
  if (!mechanism().contains_nan)
    GTEST_SKIP() << "LibTorch's softmax multiplies hidden values by zero, so a NaN reaches earlier "
                    "rows; not ours to change";
  Philox random(13, RandomPurpose::test);
  for (const at::ScalarType type : kTypes) {
    for (const double poison :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      constexpr int64_t kLength = 200, kAt = 70, kNextDocument = 140;
      const auto attention = make(1, 32, type);
      std::array<at::Tensor, 3> x;
      for (auto& part : x) part = normal({1, 1, kLength, 32}, random, type);
      at::Tensor ids = at::zeros({1, kLength}, at::kInt);
      ids.narrow(1, kNextDocument, kLength - kNextDocument).fill_(1);
      const Documents documents(ids);
      const at::Tensor clean = attention->forward(x[0], x[1], x[2], documents);
      for (size_t i = 0; i < 3; ++i) {
        auto poisoned = x;
        poisoned[i] = x[i].clone();
        poisoned[i].select(2, kAt).select(2, 5).fill_(poison);
        const at::Tensor out = attention->forward(poisoned[0], poisoned[1], poisoned[2], documents);
        EXPECT_TRUE(out.narrow(2, 0, kAt).equal(clean.narrow(2, 0, kAt)))
            << "input " << i << ", " << type;
        EXPECT_TRUE(out.narrow(2, kNextDocument, 60).equal(clean.narrow(2, kNextDocument, 60)))
            << "input " << i << ", " << type;
        EXPECT_TRUE(out.select(2, kAt).isnan().any().item<bool>()) << "input " << i << ", " << type;
        const bool later = out.narrow(2, kAt + 1, 60).isnan().any().item<bool>();
        // a query has no say in later rows
        EXPECT_EQ(later, i != 0) << "input " << i << ", " << type;
      }
    }
  }
}

TEST_P(EachMechanism, MemoryGrowsLinearly) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto peak_of = [&](int64_t length) {
      const auto attention = make(2, 64, type);
      std::array<at::Tensor, 3> x;
      for (auto& part : x) part = at::randn({1, 2, length, 64}).to(type).requires_grad_();
      const at::Tensor cotangent = at::randn({1, 2, length, 64}).to(type);
      const AllocationMeter meter(at::kCPU);
      attention->forward(x[0], x[1], x[2]).backward(cotangent);
      return meter.peak_bytes();
    };
    const int64_t half = peak_of(1024), full = peak_of(2048);
    EXPECT_GT(half, 0);
    EXPECT_LE(static_cast<double>(full), 2.2 * static_cast<double>(half)) << type;
    EXPECT_LT(full, int64_t{2} * 2048 * 2048 * 4)
        << "as much as the fp32 weights of both heads, " << type;
  }
}

TEST(Attention, CostCountsPairs) {
  const auto attention = make_attention(polynomial_of_degree(4), {3, 16});
  const AttentionCost one = attention->cost(1), many = attention->cost(100);
  EXPECT_DOUBLE_EQ(one.forward.full, 4 * 3 * 16);
  EXPECT_DOUBLE_EQ(one.forward.causal, one.forward.full);
  EXPECT_DOUBLE_EQ(many.forward.full, 100 * 100 * one.forward.full);
  EXPECT_DOUBLE_EQ(many.forward.causal, 5050 * one.forward.full);
  EXPECT_DOUBLE_EQ(many.backward.causal, 2 * many.forward.causal);
  EXPECT_EQ(many.saved_bytes(2), 100 * 3 * (4 * 16 * 2 + 4));
}

/// By hand: T = 100 in blocks of 32, 3 heads of 16, R = 8.
TEST(Attention, CostOfKernelsByHand) {
  AttentionConfig config;
  config.kind = AttentionKind::polysketch;
  config.block = 32;
  config.sketch_size = 8;
  const double near = 2 * (16 + 16) * (3 * 32 * 33 / 2 + 4 * 5 / 2),
               near_whole = 2 * (16 + 16) * (3 * 32 * 32 + 4 * 4);
  const double between =
      4 * 100 * 36 * 17;  // 36 features that differ, to write and to read, 16 values and a 1
  // a vector through both networks
  const double network = 2 * 2 * (16 * 64 + 64 * 8 + 8 * 64 + 64 * 8);
  const double sketches =
      network * (68 + 96);  // queries behind the first block, keys before the last
  const AttentionCost learned = make_attention(config, {3, 16})->cost(100);
  EXPECT_DOUBLE_EQ(learned.forward.causal, 3 * (near + between + sketches));
  EXPECT_DOUBLE_EQ(learned.forward.full, 3 * (near_whole + between + sketches));
  EXPECT_DOUBLE_EQ(learned.backward.causal, 2 * learned.forward.causal);
  EXPECT_EQ(learned.saved_bytes(2), 3 * 100 * ((4 * 16 + 2 * 8) * 2 + 4));
  EXPECT_DOUBLE_EQ(make_attention(config, {3, 16})->cost(32).forward.causal,
                   3 * 2 * (16 + 16) * 32 * 33 / 2.0);

  config.local = LocalAttention::none;
  config.sketch = SketchKind::random;
  // two products with a matrix and one of each pair of numbers
  const double products = 2 * 2 * 16 * 8 + 8;
  EXPECT_DOUBLE_EQ(make_attention(config, {3, 16})->cost(100).forward.causal,
                   3 * (2 * (8 + 16) * (3 * 32 * 33 / 2 + 4 * 5 / 2) + between + 200 * products));

  config.kind = AttentionKind::hedgehog;  // 32 features
  EXPECT_DOUBLE_EQ(
      make_attention(config, {3, 16})->cost(100).forward.causal,
      3 * (2 * (32 + 16) * (3 * 32 * 33 / 2 + 4 * 5 / 2) + 4 * 100 * 32 * 17 + 200 * 2 * 16 * 16));
}

TEST(Softmax, CloseToDense) {
  Philox random(14, RandomPurpose::test);
  for (const at::ScalarType type : kTypes) {
    const auto attention = make_attention({}, {2, 32});
    std::array<at::Tensor, 3> x, wide;
    for (size_t i = 0; i < 3; ++i) {
      x[i] = normal({2, 2, 150, 32}, random, type);
      wide[i] = x[i].to(at::kDouble);
    }
    const double bound = type == at::kDouble  ? test::tolerance::kReordered64
                         : type == at::kFloat ? test::tolerance::kSingle
                                              : test::tolerance::kBrain;
    EXPECT_LE(relative_error(attention->forward(x[0], x[1], x[2]),
                             test::dense_softmax(wide[0], wide[1], wide[2])),
              bound)
        << type;
    const Documents documents = test::random_documents(2, 150, random, 30);
    EXPECT_LE(relative_error(attention->forward(x[0], x[1], x[2], documents),
                             test::dense_softmax(wide[0], wide[1], wide[2], documents)),
              bound)
        << type;
  }
}

TEST(Attention, WrongShapesAndDegreesAreRefused) {
  const auto attention = make_attention({}, {2, 16});
  const at::Tensor x = at::randn({1, 2, 5, 16});
  EXPECT_THROW(attention->forward(x, x, at::randn({1, 2, 6, 16})), ShapeError);
  EXPECT_THROW(attention->forward(x, x.to(at::kDouble), x), ShapeError);
  EXPECT_THROW(attention->forward(x.transpose(1, 2), x, x), ShapeError);
  EXPECT_THROW(attention->forward(x, x, x, Documents(at::zeros({1, 4}, at::kInt))), ShapeError);
  EXPECT_THROW(Documents(at::zeros({1, 4}, at::kLong)), ShapeError);
  for (const int64_t degree : {-2, 0, 1, 3}) {
    try {
      make_attention(polynomial_of_degree(degree), {2, 16});
      ADD_FAILURE() << "degree " << degree << " was taken";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::config);
      EXPECT_THAT(error.what(), testing::HasSubstr("attention.degree"));
    }
  }
}

TEST(Attention, ParametersAreSharedWithTheLayer) {
  const auto attention = make_attention(polynomial_of_degree(4), {1, 16});
  ASSERT_EQ(attention->parameters().size(), 2U);
  const at::Tensor x = at::randn({1, 1, 5, 16});
  const at::Tensor before = attention->forward(x, x, x);
  const at::NoGradGuard no_grad;
  attention->parameters()[0].value.fill_(0);  // gain
  EXPECT_FALSE(before.equal(attention->forward(x, x, x)));
  EXPECT_TRUE(make_attention({}, {1, 16})->parameters().empty());
}

TEST(Documents, RunsOfEqualNumbers) {
  const Documents documents(
      at::tensor({3, 3, 5, 5, 5, 9, 1, 1, 1, 1, 1, 2}, at::kInt).view({2, 6}));
  EXPECT_EQ(documents.lengths(), (std::vector<std::vector<int64_t>>{{2, 3, 1}, {5, 1}}));
  EXPECT_TRUE(documents.starts().equal(
      at::tensor({0, 0, 2, 2, 2, 5, 0, 0, 0, 0, 0, 5}, at::kInt).view({2, 6})));
  EXPECT_FALSE(Documents().defined());
  EXPECT_THROW(Documents().starts(), InternalError);
}

}  // namespace
}  // namespace polysketch
