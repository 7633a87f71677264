// SPDX-License-Identifier: Apache-2.0
#include "golden/golden_support.hpp"

#include "attention/attention.hpp"
#include "attention/ops/chunk_states.hpp"
#include "attention/polynomial_attention.hpp"
#include "attention/sketch.hpp"

#include <torch/csrc/autograd/custom_function.h>

namespace polysketch {
namespace {

using test::GoldenCase;
using test::GoldenRunner;
using test::Tensors;

/// docs/method.md §1, from LibTorch calls: interleaved pairs in, halves out. x: [B, T, H, D].
at::Tensor rotate(const at::Tensor& x) {
  const int64_t length = x.size(1), half = x.size(3) / 2;
  const at::Tensor frequency =
      at::pow(10000.0, at::arange(half, at::kFloat) * (-2.0 / static_cast<double>(x.size(3))));
  const at::Tensor angle =
      (at::arange(length, at::kFloat).unsqueeze(1) * frequency).view({1, length, 1, half});
  const at::Tensor even = x.slice(3, 0, std::nullopt, 2), odd = x.slice(3, 1, std::nullopt, 2);
  return at::cat({even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()},
                 3);
}

std::unique_ptr<Attention> attention_of(const GoldenCase& c, const Tensors& golden) {
  auto attention =
      make_attention(test::golden_attention(c), {c.number("heads"), c.number("head_dim")});
  const at::NoGradGuard no_grad;
  for (auto& parameter : attention->parameters()) {
    parameter.value.copy_(
        test::flax_transposed(golden.at("param." + test::flax_attention_name(parameter.name))));
  }
  test::set_constants(attention->constants(), golden, "sketch.");
  return attention;
}

at::Tensor gradient_or_zero(const at::Tensor& x) {
  return x.grad().defined() ? x.grad() : at::zeros_like(x);
}

/// x -> q, k, v -> rotary -> attention -> output projection, with gradients.
Tensors run_layer(const GoldenCase& c, const Tensors& golden) {
  const int64_t batch = c.number("batch"), length = c.number("length"), heads = c.number("heads"),
                width = c.number("head_dim");
  const at::Tensor x = golden.at("in.x").clone().requires_grad_();
  const at::Tensor in = golden.at("param.Dense_0.kernel").clone().requires_grad_();
  const at::Tensor out = golden.at("param.Dense_1.kernel").clone().requires_grad_();
  const auto attention = attention_of(c, golden);
  const auto qkv = at::matmul(x, in).chunk(3, 2);
  const auto split = [&](const at::Tensor& part) {
    return part.reshape({batch, length, heads, width});
  };
  const at::Tensor q = rotate(split(qkv[0])), k = rotate(split(qkv[1]));
  const at::Tensor o =
      attention->forward(q.transpose(1, 2), k.transpose(1, 2), split(qkv[2]).transpose(1, 2));
  const at::Tensor y = at::matmul(o.transpose(1, 2).reshape({batch, length, heads * width}), out);
  y.backward(golden.at("cot.y"));
  Tensors computed{{"out.y", y.detach()},
                   {"mid.q_rope", q.detach()},
                   {"mid.k_rope", k.detach()},
                   {"grad.in.x", x.grad()},
                   {"grad.param.Dense_0.kernel", in.grad()},
                   {"grad.param.Dense_1.kernel", out.grad()}};
  for (const auto& parameter : attention->parameters()) {
    computed["grad.param." + test::flax_attention_name(parameter.name)] =
        test::flax_transposed(gradient_or_zero(parameter.value));
  }
  for (const auto& [name, tensor] : golden) {
    if (name.rfind("grad.", 0) == 0 && test::is_unused(c, name))
      computed[name] = at::zeros_like(tensor);
  }
  return computed;
}

/// The learned sketch alone.
Tensors run_sketch(const GoldenCase& c, const Tensors& golden) {
  const at::Tensor x = golden.at("in.x").clone().requires_grad_();
  const auto sketch = make_learned_sketch(x.size(3), c.number("sketch"), 2, at::kFloat);
  const auto flax = [](const AttentionParameter& parameter) {
    return "param." + test::flax_attention_name("sketch." + parameter.name)
                          .substr(std::string("pre_attn_layer.").size());
  };
  for (auto& parameter : sketch->parameters()) {
    const at::NoGradGuard no_grad;
    parameter.value.copy_(test::flax_transposed(golden.at(flax(parameter))));
  }
  const at::Tensor y = (*sketch)(x);
  y.backward(golden.at("cot.y"));
  Tensors computed{{"out.y", y.detach()}, {"grad.in.x", x.grad()}};
  for (const auto& parameter : sketch->parameters())
    computed["grad." + flax(parameter)] = test::flax_transposed(parameter.value.grad());
  return computed;
}

struct BetweenBlocks : public torch::autograd::Function<BetweenBlocks> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& a,
                            const at::Tensor& b, const at::Tensor& v, int64_t power,
                            int64_t block) {
    context->save_for_backward({a, b, v});
    context->saved_data["power"] = power;
    context->saved_data["block"] = block;
    return ops::chunk_states_forward({a, b, v, power, block, {}, {}}).sum;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto kept = context->get_saved_variables();
    const ops::ChunkStatesCall call{kept[0],
                                    kept[1],
                                    kept[2],
                                    context->saved_data.at("power").toInt(),
                                    context->saved_data.at("block").toInt(),
                                    {},
                                    {}};
    const ops::ChunkStatesGradients back =
        ops::chunk_states_backward(call, gradients[0], at::zeros(gradients[0].sizes().slice(0, 3)));
    return {back.a, back.b, back.v, at::Tensor(), at::Tensor()};
  }
};

/// Lower-triangular products: what lies between blocks by the engine, what lies inside them
/// densely, here. The cache, the sum over all rows, is what queries would read that follow behind
/// all blocks: unit vectors, and sums of two of them for products of two entries.
Tensors run_products(const GoldenCase& c, const Tensors& golden) {
  std::map<std::string, at::Tensor> in;
  for (const char* name : {"a", "b", "c", "a_prime", "b_prime"}) {
    if (golden.count(std::string("in.") + name))
      in[name] = golden.at(std::string("in.") + name).clone().requires_grad_();
  }
  const at::Tensor &a = in["a"], &b = in["b"], &v = in["c"];
  const int64_t power = c.mechanism == "lt_multiply" ? 1 : 2, block = c.number("block"),
                length = a.size(2), rank = a.size(3);
  const at::Tensor unit = at::eye(rank);
  at::Tensor reading = unit;
  // row i·R + j: e_i + e_j
  if (power == 2) reading = (unit.unsqueeze(0) + unit.unsqueeze(1)).flatten(0, 1);
  reading = reading.expand({a.size(0), a.size(1), reading.size(0), rank});
  const auto padded = [&](const at::Tensor& x) {
    return at::constant_pad_nd(x, {0, 0, 0, reading.size(2)});
  };
  const at::Tensor all =
      BetweenBlocks::apply(at::cat({a, reading}, 2), padded(b), padded(v), power, block);
  const bool mixed = in.count("a_prime") > 0;
  const at::Tensor scores =
      at::matmul(mixed ? in["a_prime"] : a, (mixed ? in["b_prime"] : b).transpose(2, 3));
  const at::Tensor number = at::arange(length),
                   same = number.div(block, "floor").unsqueeze(1).eq(number.div(block, "floor"));
  const at::Tensor near = scores.pow(mixed ? c.number("power") : power).tril() * same;
  const at::Tensor y = all.narrow(2, 0, length) + at::matmul(near, v);
  at::Tensor whole = (y * golden.at("cot.y")).sum();
  Tensors computed{{"out.y", y.detach()}};
  if (golden.count("out.cache")) {
    at::Tensor cache = all.narrow(2, length, reading.size(2));
    if (power == 2) {
      const at::Tensor pairs = cache.unflatten(2, {rank, rank});              // Σ (b_i + b_j)² c
      const at::Tensor squares = pairs.diagonal(0, 2, 3).movedim(-1, 2) / 4;  // Σ b_i² c
      cache = (pairs - squares.unsqueeze(2) - squares.unsqueeze(3)) / 2;
    }
    computed["out.cache"] = cache.detach();
    whole = whole + (cache * golden.at("cot.cache")).sum();
  }
  whole.backward();
  for (const auto& [name, tensor] : in) {
    if (tensor.defined()) computed["grad.in." + name] = tensor.grad();
  }
  return computed;
}

Tensors run_performer(const GoldenCase& c, const Tensors& golden) {
  AttentionConfig config;
  config.kind = AttentionKind::performer;
  config.features = c.number("features");
  config.stabiliser = Stabiliser::paper;
  config.block = 16;
  const auto attention = make_attention(config, {c.number("heads"), c.number("head_dim")});
  attention->constants()[0].value.copy_(golden.at("sketch.projection"));
  std::array<at::Tensor, 3> in;
  const std::array names{"q", "k", "v"};
  for (size_t i = 0; i < 3; ++i)
    in[i] = golden.at(std::string("in.") + names[i]).clone().requires_grad_();
  const at::Tensor y =
      attention->forward(in[0].transpose(1, 2), in[1].transpose(1, 2), in[2].transpose(1, 2))
          .transpose(1, 2);
  y.backward(golden.at("cot.y"));
  Tensors computed{{"out.y", y.detach()}};
  for (size_t i = 0; i < 3; ++i) computed[std::string("grad.in.") + names[i]] = in[i].grad();
  return computed;
}

/// Attention alone, on given q, k, v.
Tensors run_function(const GoldenCase& c, const Tensors& golden) {
  const at::Tensor q = golden.at("in.q").clone().requires_grad_(),
                   k = golden.at("in.k").clone().requires_grad_();
  const at::Tensor v = golden.at("in.v").clone().requires_grad_();
  PolynomialOptions options;
  options.degree = c.number("power");
  const at::Tensor y = polynomial_attention(q, k, v, options);
  y.backward(golden.at("cot.y"));
  return {{"out.y", y.detach()},
          {"grad.in.q", q.grad()},
          {"grad.in.k", k.grad()},
          {"grad.in.v", v.grad()}};
}

Tensors run(const GoldenCase& c, const Tensors& golden) {
  if (c.kind == "attn") return run_layer(c, golden);
  if (c.kind == "layer") return run_sketch(c, golden);
  if (c.mechanism == "performer_favor") return run_performer(c, golden);
  return c.mechanism.find("lt_multiply") != std::string::npos ? run_products(c, golden)
                                                              : run_function(c, golden);
}

class GoldenAttention : public testing::TestWithParam<GoldenCase> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenAttention);
INSTANTIATE_TEST_SUITE_P(All, GoldenAttention,
                         testing::ValuesIn(test::golden_cases_of(GoldenRunner::attention)),
                         test::golden_test_name);

TEST_P(GoldenAttention, OutputsAndGradients) {
  const GoldenCase& c = GetParam();
  const Tensors golden = test::golden_tensors(c);
  test::expect_golden(c, golden, run(c, golden));
}

TEST(Golden, EveryCaseIsRun) {
  const auto cases = test::golden_cases();
  if (!cases)
    GTEST_SKIP() << "no golden values: set POLYSKETCH_GOLDEN or put them into ../shared/golden";
  EXPECT_FALSE(cases->empty());
  for (const GoldenCase& c : *cases) {
    EXPECT_TRUE(test::golden_runner(c).has_value())
        << c.name << ": no test knows this case (tests/helpers/golden.hpp)";
  }
}

}  // namespace
}  // namespace polysketch
