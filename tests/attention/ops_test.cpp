// SPDX-License-Identifier: Apache-2.0
// How operations get their implementations, and that these agree.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <optional>

#include "attention/attention.hpp"
#include "attention/ops/chunk_states.hpp"
#include "attention/ops/cpu_rows.hpp"
#include "attention/ops/polynomial.hpp"
#include "attention/ops/sketch.hpp"
#include "helpers/test_helpers.hpp"
#include "helpers/tolerances.hpp"
#include "mechanisms.hpp"

namespace polysketch::test {
namespace {

using ops::ForcedOperations;
using testing::HasSubstr;

std::string refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    return error.what();
  }
  return "no error";
}
std::string refusal(const std::string& forced) {
  return refusal_of([&] { const ForcedOperations force(forced); });
}

TEST(Operations, WhatIsForcedMustExist) {
  EXPECT_THAT(refusal("cuda-but-faster"), HasSubstr("no operation has an implementation"));
  EXPECT_THAT(refusal("softmax:aten"), HasSubstr("there is no operation 'softmax': want one of"));
  EXPECT_EQ(refusal("polynomial:cuda"),
            "POLYSKETCH_OPS: polynomial has no implementation 'cuda': want cpu or aten");
}

TEST(Operations, SayWhatTheyUse) {
  EXPECT_THAT(ops::operations_in_use(at::kCPU), HasSubstr("sketch "));
  const ForcedOperations force("aten");
  EXPECT_THAT(ops::operations_in_use(at::kCPU),
              testing::AllOf(HasSubstr("chunk_states aten"), HasSubstr("polynomial aten")));
  const ForcedOperations one("sketch:aten");
  EXPECT_THAT(ops::operations_in_use(at::kCPU), HasSubstr("sketch aten"));
}

TEST(Operations, WhatIsForcedIsTakenOrRefused) {
  ops::PolynomialCall call;
  const auto wide = at::TensorOptions().dtype(at::kDouble);
  call.q = call.k = call.v = at::randn({1, 1, 4, 16}, wide);
  call.degree = 4;
  EXPECT_TRUE(ops::polynomial_forward(call).output.defined());
  const ForcedOperations force("polynomial:cpu");  // has no kernel for fp64
  EXPECT_THAT(refusal_of([&] { ops::polynomial_forward(call); }),
              HasSubstr("POLYSKETCH_OPS: polynomial:cpu does not take these tensors"));
}

class EachWay : public testing::TestWithParam<Mechanism> {};

/// Output and gradients of one mechanism with what `forced` says.
std::vector<at::Tensor> run(const Mechanism& mechanism, const std::string& forced) {
  std::optional<ForcedOperations> force;
  if (!forced.empty()) force.emplace(forced);
  at::manual_seed(3);
  const auto attention = make_attention(mechanism.config, {2, 32});
  std::vector<at::Tensor> leaves;
  for (int i = 0; i < 3; ++i) leaves.push_back(at::randn({2, 2, 100, 32}).requires_grad_());
  const at::Tensor cotangent = at::randn({2, 2, 100, 32});
  for (const AttentionParameter& one : attention->parameters()) leaves.push_back(one.value);
  const at::Tensor ids = at::arange(200, at::kInt).div(70, "floor").to(at::kInt).view({2, 100});
  const at::Tensor output = attention->forward(leaves[0], leaves[1], leaves[2], Documents(ids));
  std::vector<at::Tensor> all = torch::autograd::grad({output}, leaves, {cotangent}, std::nullopt,
                                                      false, /*allow_unused=*/true);
  all.push_back(output.detach());
  return all;
}

TEST_P(EachWay, GivesTheSame) {
  const auto ours = run(GetParam(), ""), plain = run(GetParam(), "aten");
  ASSERT_EQ(ours.size(), plain.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    ASSERT_EQ(ours[i].defined(), plain[i].defined()) << i;
    if (!ours[i].defined()) continue;
    const double size = plain[i].norm().item<double>();
    EXPECT_LE((ours[i] - plain[i]).norm().item<double>(), tolerance::kSingle * size) << i;
  }
}
INSTANTIATE_TEST_SUITE_P(All, EachWay, testing::ValuesIn(mechanisms()),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace polysketch::test
