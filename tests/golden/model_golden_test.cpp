// SPDX-License-Identifier: Apache-2.0
// Layers, whole models and training steps against the authors' code.
#include <regex>

#include "attention/ops/choice.hpp"
#include "golden/golden_support.hpp"
#include "model/transformer.hpp"
#include "training/adamw.hpp"

namespace polysketch {
namespace {

using test::GoldenCase;
using test::GoldenRunner;
using test::Tensors;

/// Flax's name of one of our parameters: "blocks.0.glu.up.weight" -> "Block_0.ff.Dense_0.kernel".
/// Dense kernels are [in, out] there.
std::string flax_name(const std::string& name) {
  static const std::vector<std::pair<std::regex, std::string>> rules{
      {std::regex("^embedding\\.weight$"), "wte.embedding"},
      {std::regex("^logit_bias$"), "softmax_bias"},
      {std::regex("^norm\\.gain$"), "ln.scale"},
      {std::regex("^norm\\.bias$"), "ln.bias"},
      {std::regex("^blocks\\.(\\d+)\\.norm([12])\\.gain$"), "Block_$1.ln_$2.scale"},
      {std::regex("^blocks\\.(\\d+)\\.norm([12])\\.bias$"), "Block_$1.ln_$2.bias"},
      {std::regex("^blocks\\.(\\d+)\\.attention\\.qkv\\.weight$"), "Block_$1.attn.Dense_0.kernel"},
      {std::regex("^blocks\\.(\\d+)\\.attention\\.out\\.weight$"), "Block_$1.attn.Dense_1.kernel"},
      {std::regex("^blocks\\.(\\d+)\\.glu\\.up\\.weight$"), "Block_$1.ff.Dense_0.kernel"},
      {std::regex("^blocks\\.(\\d+)\\.glu\\.down\\.weight$"), "Block_$1.ff.Dense_1.kernel"},
  };
  for (const auto& [pattern, replacement] : rules) {
    if (std::regex_match(name, pattern)) return std::regex_replace(name, pattern, replacement);
  }
  std::smatch parts;
  if (std::regex_match(name, parts, std::regex("^blocks\\.(\\d+)\\.attention\\.(.*)$"))) {
    return "Block_" + parts[1].str() + ".attn." + test::flax_attention_name(parts[2].str());
  }
  throw std::runtime_error("no flax name for " + name);
}

at::Tensor as_flax(const ParameterInfo& info, const at::Tensor& value) {
  const bool dense = info.shape.size() == 2 && info.name != "embedding.weight";
  return (dense ? value.t() : value).contiguous().clone();
}

Transformer golden_model(const GoldenCase& c, const Tensors& golden) {
  Transformer::Options options;
  options.model.size = ModelSize::custom;
  options.model.layers = c.number("layers");
  options.model.width = c.number("emb_dim");
  options.model.heads = c.number("heads");
  options.model.hidden = c.number("emb_dim") * 8 / 3 / 8 * 8;
  options.model.vocabulary = c.number("vocab");
  options.attention = test::golden_attention(c);
  options.initialize = false;
  Transformer model(options);
  Parameters& parameters = model.parameters();
  for (size_t i = 0; i < parameters.infos().size(); ++i) {
    const ParameterInfo& info = parameters.infos()[i];
    const at::Tensor value = golden.at("param." + flax_name(info.name));
    parameters.master(i).copy_(value.dim() == 2 && info.name != "embedding.weight" ? value.t()
                                                                                   : value);
  }
  parameters.refresh_compute();
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    test::set_constants(model.attention(layer).constants(), golden,
                        "sketch." + std::to_string(layer) + ".");
  }
  return model;
}

/// tokens [B, T + 1] -> inputs and targets.
ModelInput input_of(const at::Tensor& tokens) {
  const at::Tensor ids = tokens.to(at::kLong);
  return {.ids = ids.narrow(1, 0, ids.size(1) - 1).contiguous(),
          .targets = ids.narrow(1, 1, ids.size(1) - 1).contiguous(),
          .documents = {},
          .dropout = {}};
}

Tensors run_model(const GoldenCase& c, const Tensors& golden) {
  Transformer model = golden_model(c, golden);
  const ModelInput input = input_of(golden.at("in.tokens"));
  const double scale = 1.0 / static_cast<double>(input.ids.numel());
  Tensors computed{{"out.logits", model.logits(input.ids)}};
  const auto blocks = model.block_outputs(input.ids);
  for (size_t i = 0; i < blocks.size(); ++i) computed["mid.block_" + std::to_string(i)] = blocks[i];
  computed["out.loss"] = (model.forward_backward(input, scale) * scale).view({1});
  const auto& infos = model.parameters().infos();
  for (size_t i = 0; i < infos.size(); ++i) {
    computed["grad.param." + flax_name(infos[i].name)] =
        as_flax(infos[i], model.parameters().gradient(i));
  }
  for (const auto& [name, tensor] : golden) {
    if (name.rfind("grad.", 0) == 0 && test::is_unused(c, name))
      computed[name] = at::zeros_like(tensor);
  }
  return computed;
}

Tensors run_training(const GoldenCase& c, const Tensors& golden) {
  Transformer model = golden_model(c, golden);
  OptimizerConfig config;
  config.beta1 = c.config.at("b1").get<double>();
  config.beta2 = c.config.at("b2").get<double>();
  config.epsilon = c.config.at("eps").get<double>();
  config.weight_decay = c.config.at("weight_decay").get<double>();
  config.clip = 0;
  AdamW optimizer(model.parameters(), config);
  const at::Tensor batches = golden.at("in.tokens");  // [S, B, T + 1]
  std::vector<float> losses;
  const auto mean = [&](const at::Tensor& tokens) {
    return model.losses(input_of(tokens)).mean().item<float>();
  };
  for (int64_t step = 0; step < c.number("steps"); ++step) {
    const ModelInput input = input_of(batches[step]);
    const double scale = 1.0 / static_cast<double>(input.ids.numel());
    losses.push_back(
        static_cast<float>(model.forward_backward(input, scale).item<double>() * scale));
    optimizer.apply(c.config.at("learning_rate").get<double>(), step + 1,
                    optimizer.gradient_norm());
  }
  losses.push_back(mean(batches[0]));
  Tensors computed{{"out.losses", at::tensor(losses)}};
  const auto& infos = model.parameters().infos();
  for (size_t i = 0; i < infos.size(); ++i) {
    const std::string name = flax_name(infos[i].name);
    const at::Tensor value = as_flax(infos[i], model.parameters().master(i));
    if (c.tolerances.count("out.final." + name)) computed["out.final." + name] = value;
    if (c.tolerances.count("out.final_norm." + name))
      computed["out.final_norm." + name] = value.norm().view({1});
  }
  for (const auto& [name, tensor] : golden) {
    if (name.rfind("param.", 0) != 0 || !test::is_unused(c, name)) continue;
    const std::string bare = name.substr(std::string("param.").size());
    if (c.tolerances.count("out.final." + bare)) computed["out.final." + bare] = tensor;
    if (c.tolerances.count("out.final_norm." + bare))
      computed["out.final_norm." + bare] = tensor.norm().view({1});
  }
  return computed;
}

Tensors run_rope(const GoldenCase& c, const Tensors& golden) {
  const int64_t batch = c.number("batch"), length = c.number("length"), heads = c.number("heads"),
                width = c.number("head_dim");
  const ops::RotaryTable table =
      ops::rotary_table(length, width, at::TensorOptions().dtype(at::kFloat));
  // The operation takes q, k, v side by side; the case rotates one tensor, so it is given as q and
  // as k.
  const auto rows = [&](const at::Tensor& x) { return x.reshape({batch * length, heads * width}); };
  const at::Tensor x = rows(golden.at("in.x"));
  const auto parts = ops::split_rotate(at::cat({x, x, x}, 1), batch, heads, table);
  EXPECT_TRUE(parts[0].equal(parts[1]));
  const at::Tensor cotangent = golden.at("cot.y").transpose(1, 2).contiguous(),
                   none = at::zeros_like(cotangent);
  const at::Tensor gradient =
      ops::merge_rotate_backward(cotangent, none, none, table).narrow(1, 0, heads * width);
  return {{"mid.cos", table.cos},
          {"mid.sin", table.sin},
          {"out.y", parts[0].transpose(1, 2)},
          {"grad.in.x", gradient.reshape({batch, length, heads, width})}};
}

Tensors run_sinusoidal(const GoldenCase& c, const Tensors& golden) {
  const at::Tensor table = ops::sinusoidal_table(c.number("length"), c.number("emb_dim"),
                                                 at::TensorOptions().dtype(at::kFloat));
  for (const auto& [name, tensor] : golden) {
    if (name.rfind("out.", 0) == 0) return {{name, table.view(tensor.sizes())}};
  }
  throw std::runtime_error(c.name + " has no output");
}

Tensors run_norm(const GoldenCase&, const Tensors& golden) {
  const at::Tensor in = golden.at("in.x");
  const at::Tensor x = in.reshape({-1, in.size(-1)}).contiguous(), gain = golden.at("param.scale"),
                   bias = golden.at("param.bias");
  const ops::Normalized normalized = ops::layer_norm(x, gain, bias, at::kFloat);
  at::Tensor dx = at::zeros_like(x), d_gain = at::zeros_like(gain), d_bias = at::zeros_like(bias);
  ops::layer_norm_backward(golden.at("cot.y").reshape(x.sizes()).contiguous(), x, normalized, gain,
                           dx, d_gain, d_bias);
  return {{"out.y", normalized.y.view(in.sizes())},
          {"grad.in.x", dx.view(in.sizes())},
          {"grad.param.scale", d_gain},
          {"grad.param.bias", d_bias}};
}

Tensors run_glu(const GoldenCase&, const Tensors& golden) {
  const at::Tensor in = golden.at("in.x"), up = golden.at("param.Dense_0.kernel"),
                   down = golden.at("param.Dense_1.kernel");
  const at::Tensor x = in.reshape({-1, in.size(-1)}),
                   cotangent = golden.at("cot.y").reshape({-1, in.size(-1)});
  at::Tensor pre = at::mm(x, up);
  const at::Tensor y = at::mm(ops::glu(pre), down);
  at::Tensor d_out = at::mm(cotangent, down.t());
  ops::glu_backward(pre, d_out);  // pre becomes its gradient, d_out the unit's output
  return {{"out.y", y.view(in.sizes())},
          {"grad.in.x", at::mm(pre, up.t()).view(in.sizes())},
          {"grad.param.Dense_0.kernel", at::mm(x.t(), pre)},
          {"grad.param.Dense_1.kernel", at::mm(d_out.t(), cotangent)}};
}

Tensors run(const GoldenCase& c, const Tensors& golden) {
  if (c.kind == "model") return run_model(c, golden);
  if (c.kind == "train") return run_training(c, golden);
  if (c.mechanism == "rope") return run_rope(c, golden);
  if (c.mechanism == "sinusoidal") return run_sinusoidal(c, golden);
  if (c.mechanism == "norm") return run_norm(c, golden);
  return run_glu(c, golden);
}

class GoldenModel : public testing::TestWithParam<GoldenCase> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenModel);
INSTANTIATE_TEST_SUITE_P(All, GoldenModel,
                         testing::ValuesIn(test::golden_cases_of(GoldenRunner::model)),
                         test::golden_test_name);

TEST_P(GoldenModel, OutputsAndGradients) {
  const at::NoGradGuard no_grad;
  const GoldenCase& c = GetParam();
  const Tensors golden = test::golden_tensors(c);
  test::expect_golden(c, golden, run(c, golden));
}

/// The same through LibTorch's operations, which serve other devices.
TEST_P(GoldenModel, OutputsAndGradientsWithoutKernels) {
  const at::NoGradGuard no_grad;
  const ops::ForcedOperations without_kernels("aten");
  const GoldenCase& c = GetParam();
  const Tensors golden = test::golden_tensors(c);
  test::expect_golden(c, golden, run(c, golden));
}

}  // namespace
}  // namespace polysketch
