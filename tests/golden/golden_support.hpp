// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attention/attention.hpp"
#include "checkpoint/tensor_file.hpp"
#include "helpers/golden.hpp"

namespace polysketch::test {

using Tensors = std::map<std::string, at::Tensor>;

/// All tensors of a safetensors file (fp32 and int32 in golden sets).
inline Tensors read_tensors(const std::filesystem::path& path) {
  Tensors tensors;
  const TensorFile file(path);
  for (const TensorInfo& info : file.tensors()) {
    at::ScalarType type = at::kFloat;
    switch (info.type) {
      case DataType::f32:
        break;
      case DataType::f64:
        type = at::kDouble;
        break;
      case DataType::i32:
        type = at::kInt;
        break;
      case DataType::i64:
        type = at::kLong;
        break;
      default:
        throw std::runtime_error(path.string() + ": " + info.name + ": unexpected type " +
                                 safetensors_name(info.type));
    }
    at::Tensor tensor = at::empty(info.shape, type);
    file.read(info, tensor.mutable_data_ptr());
    tensors[info.name] = tensor;
  }
  return tensors;
}

/// The tensors of a case, with param.* and sketch.* from another file where the manifest says so.
inline Tensors golden_tensors(const GoldenCase& c) {
  Tensors tensors = read_tensors(c.file);
  if (c.parameters_file != c.file) {
    for (auto& [name, tensor] : read_tensors(c.parameters_file)) {
      if (name.rfind("param.", 0) == 0 || name.rfind("sketch.", 0) == 0) tensors[name] = tensor;
    }
  }
  return tensors;
}

/// Compares what was computed with the golden tensors, each within its own bound, and prints the
/// one that came nearest to its bound. Every out. and grad. tensor of the case must be there; mid.
/// tensors may be left out. Nothing that the case lacks may be given.
inline void expect_golden(const GoldenCase& c, const Tensors& golden, const Tensors& computed) {
  double worst = -1;
  std::string worst_name = "nothing";
  for (const auto& [name, tolerance] : c.tolerances) {
    const auto found = computed.find(name);
    if (found == computed.end()) {
      EXPECT_EQ(name.rfind("mid.", 0), 0U) << c.name << ": " << name << " was not computed";
      continue;
    }
    const at::Tensor& want = golden.at(name);
    ASSERT_EQ(found->second.sizes(), want.sizes()) << c.name << ": " << name;
    const at::Tensor difference = (found->second.to(at::kDouble) - want.to(at::kDouble)).abs();
    const double max_abs = difference.numel() == 0 ? 0 : difference.max().item<double>();
    const double rms =
        difference.numel() == 0 ? 0 : std::sqrt(difference.square().mean().item<double>());
    const auto check = [&](double error, const std::optional<double>& bound, const char* what) {
      if (!bound) return;
      EXPECT_LE(error, *bound) << c.name << ": " << name << ", " << what;  // a NaN fails too
      const double share = *bound > 0 ? error / *bound : (error > 0 ? INFINITY : 0);
      if (!(share <= worst)) {
        worst = share;
        worst_name = name + " (" + what + ")";
      }
    };
    EXPECT_TRUE(tolerance.max_abs || tolerance.rms) << c.name << ": " << name << " has no bound";
    check(max_abs, tolerance.max_abs, "max_abs");
    check(rms, tolerance.rms, "rms");
  }
  for (const auto& entry : computed)
    EXPECT_TRUE(c.tolerances.count(entry.first))
        << c.name << ": computed " << entry.first << ", which the case lacks";
  std::printf("%s: worst tensor %s at %.2f of its bound\n", c.name.c_str(), worst_name.c_str(),
              worst);
}

/// Flax's name of a parameter of one of our attention layers: "sketch.left.0.up" ->
/// "pre_attn_layer.ff1_0.Dense_0.kernel".
inline std::string flax_attention_name(const std::string& name) {
  static const std::vector<std::pair<std::regex, std::string>> rules{
      {std::regex("^norm\\."), "pre_attn_layer."},  {std::regex("^query_norm\\."), "LayerNorm_0."},
      {std::regex("^key_norm\\."), "LayerNorm_1."}, {std::regex("^sketch\\."), "pre_attn_layer."},
      {std::regex("left\\.([01])\\."), "ff1_$1."},  {std::regex("right\\.([01])\\."), "ff2_$1."},
      {std::regex("\\.norm\\."), ".LayerNorm_0."},  {std::regex("\\.up$"), ".Dense_0.kernel"},
      {std::regex("\\.down$"), ".Dense_1.kernel"},  {std::regex("\\.gain$"), ".scale"},
  };
  std::string flax = name;
  for (const auto& [pattern, replacement] : rules)
    flax = std::regex_replace(flax, pattern, replacement);
  return flax;
}

/// Matrices are [in, out] there, [out, in] here.
inline at::Tensor flax_transposed(const at::Tensor& x) {
  return x.dim() == 2 ? x.t().contiguous() : x;
}

/// The mechanism of a case, as the authors' code has it.
inline AttentionConfig golden_attention(const GoldenCase& c) {
  AttentionConfig config;
  const auto sketched = [&](SketchKind sketch) {
    config.kind = AttentionKind::polysketch;
    config.sketch = sketch;
    config.sketch_scale = SketchScale::code;
    config.sketch_size = c.number("sketch");
    config.block = c.number("block");
    config.local = c.config.contains("local_power") ? LocalAttention::exact : LocalAttention::none;
    config.degree = 4;
  };
  if (c.mechanism == "polynomial") config.kind = AttentionKind::polynomial;
  if (c.config.contains("power")) config.degree = c.number("power");
  if (c.mechanism.rfind("random_sketch", 0) == 0) sketched(SketchKind::random);
  if (c.mechanism.rfind("learned_sketch", 0) == 0) sketched(SketchKind::learned);
  return config;
}

/// Puts the case's random matrices into a layer: "sketch.s1" of a layer alone, "sketch.0.s1" of
/// layer 0 of a model.
inline void set_constants(std::vector<AttentionParameter> constants, const Tensors& golden,
                          const std::string& prefix) {
  for (AttentionParameter& constant : constants) {
    const bool left = constant.name == "sketch.left";
    if (!left && constant.name != "sketch.right")
      throw std::runtime_error("no golden tensor for " + constant.name);
    constant.value.copy_(golden.at(prefix + (left ? "s1" : "s2")));
  }
}

/// Two norms that the authors' random sketch with local attention has and does not use (its shim
/// 1).
inline bool is_unused(const GoldenCase& c, const std::string& tensor) {
  return c.mechanism == "random_sketch_mixed" && tensor.find("LayerNorm_") != std::string::npos;
}

/// For INSTANTIATE_TEST_SUITE_P.
inline std::string golden_test_name(const testing::TestParamInfo<GoldenCase>& parameter) {
  return parameter.param.name;
}

}  // namespace polysketch::test
