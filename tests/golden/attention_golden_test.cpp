// SPDX-License-Identifier: Apache-2.0
#include "golden/golden_support.hpp"

#include "attention/attention.hpp"
#include "attention/polynomial.hpp"

namespace polysketch {
namespace {

using test::GoldenCase;
using test::GoldenRunner;
using test::Tensors;

/// METHOD §1, from LibTorch calls: interleaved pairs in, halves out. x: [B, T, H, D].
at::Tensor rotate(const at::Tensor& x) {
  const int64_t length = x.size(1), half = x.size(3) / 2;
  const at::Tensor frequency = at::pow(10000.0, at::arange(half, at::kFloat) * (-2.0 / static_cast<double>(x.size(3))));
  const at::Tensor angle = (at::arange(length, at::kFloat).unsqueeze(1) * frequency).view({1, length, 1, half});
  const at::Tensor even = x.slice(3, 0, std::nullopt, 2), odd = x.slice(3, 1, std::nullopt, 2);
  return at::cat({even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()}, 3);
}

std::unique_ptr<Attention> attention_of(const GoldenCase& c, const Tensors& golden) {
  AttentionConfig config;
  config.kind = c.mechanism == "softmax" ? AttentionKind::softmax : AttentionKind::polynomial;
  if (c.config.contains("power")) config.degree = c.number("power");
  auto attention = make_attention(config, {c.number("heads"), c.number("head_dim")});
  for (auto& parameter : attention->parameters()) {
    const at::NoGradGuard no_grad;
    parameter.value.copy_(golden.at(parameter.name == "norm.gain" ? "param.pre_attn_layer.scale" : "param.pre_attn_layer.bias"));
  }
  return attention;
}

/// x -> q, k, v -> rotary -> attention -> output projection, with gradients.
Tensors run_layer(const GoldenCase& c, const Tensors& golden) {
  const int64_t batch = c.number("batch"), length = c.number("length"), heads = c.number("heads"), width = c.number("head_dim");
  const at::Tensor x = golden.at("in.x").clone().requires_grad_();
  const at::Tensor in = golden.at("param.Dense_0.kernel").clone().requires_grad_();
  const at::Tensor out = golden.at("param.Dense_1.kernel").clone().requires_grad_();
  const auto attention = attention_of(c, golden);
  const auto qkv = at::matmul(x, in).chunk(3, 2);
  const auto split = [&](const at::Tensor& part) { return part.reshape({batch, length, heads, width}); };
  const at::Tensor q = rotate(split(qkv[0])), k = rotate(split(qkv[1]));
  const at::Tensor o = attention->forward(q.transpose(1, 2), k.transpose(1, 2), split(qkv[2]).transpose(1, 2));
  const at::Tensor y = at::matmul(o.transpose(1, 2).reshape({batch, length, heads * width}), out);
  y.backward(golden.at("cot.y"));
  Tensors computed{{"out.y", y.detach()},
                   {"mid.q_rope", q.detach()},
                   {"mid.k_rope", k.detach()},
                   {"grad.in.x", x.grad()},
                   {"grad.param.Dense_0.kernel", in.grad()},
                   {"grad.param.Dense_1.kernel", out.grad()}};
  for (const auto& parameter : attention->parameters()) {
    computed[parameter.name == "norm.gain" ? "grad.param.pre_attn_layer.scale" : "grad.param.pre_attn_layer.bias"] = parameter.value.grad();
  }
  return computed;
}

/// Attention alone, on given q, k, v.
Tensors run_function(const GoldenCase& c, const Tensors& golden) {
  const at::Tensor q = golden.at("in.q").clone().requires_grad_(), k = golden.at("in.k").clone().requires_grad_();
  const at::Tensor v = golden.at("in.v").clone().requires_grad_();
  PolynomialOptions options;
  options.degree = c.number("power");
  const at::Tensor y = polynomial_attention(q, k, v, options);
  y.backward(golden.at("cot.y"));
  return {{"out.y", y.detach()}, {"grad.in.q", q.grad()}, {"grad.in.k", k.grad()}, {"grad.in.v", v.grad()}};
}

class GoldenAttention : public testing::TestWithParam<GoldenCase> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenAttention);
INSTANTIATE_TEST_SUITE_P(All, GoldenAttention, testing::ValuesIn(test::golden_cases_of(GoldenRunner::attention)), test::golden_test_name);

TEST_P(GoldenAttention, OutputsAndGradients) {
  const GoldenCase& c = GetParam();
  const Tensors golden = test::golden_tensors(c);
  test::expect_golden(c, golden, c.kind == "fn" ? run_function(c, golden) : run_layer(c, golden));
}

TEST(Golden, EveryCaseIsRunOrItsMechanismIsListedAsUnbuilt) {
  const auto cases = test::golden_cases();
  if (!cases) GTEST_SKIP() << "no golden values: set POLYSKETCH_GOLDEN or put them into ../shared/golden";
  EXPECT_FALSE(cases->empty());
  size_t run = 0;
  for (const GoldenCase& c : *cases) {
    const auto runner = test::golden_runner(c);
    EXPECT_TRUE(runner.has_value()) << c.name << ": no test knows this case (tests/helpers/golden.hpp)";
    if (runner == GoldenRunner::unbuilt) std::printf("not built yet: %s\n", c.name.c_str());
    run += runner == GoldenRunner::attention || runner == GoldenRunner::model;
  }
  EXPECT_GT(run, 0U);
}

}  // namespace
}  // namespace polysketch
