// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"

// Golden values: what the authors' code computed, one safetensors file a case and one manifest.json
// for all. The folder is named by POLYSKETCH_GOLDEN, by default ../shared/golden. Cases are taken
// from the manifest, never from a list of ours; a case is known by what it is (the first word of
// its name and its attention), so that another set with other shapes needs no change here.

namespace polysketch::test {

/// Bounds on value - golden; a missing one is not checked.
struct GoldenTolerance {
  std::optional<double> max_abs;
  std::optional<double> rms;
};

struct GoldenCase {
  std::string name;  ///< "attn_polynomial_p4"
  std::string kind;  ///< "layer" | "fn" | "attn" | "model" | "train"
  /// attention of the configuration; for layers and functions what follows the kind in the name
  std::string mechanism;
  nlohmann::json config;  ///< numbers of the case: batch, length, heads, ...
  std::filesystem::path file;
  std::filesystem::path
      parameters_file;  ///< holds param.*; the file itself unless the manifest names another
  std::map<std::string, GoldenTolerance> tolerances;  ///< of every out., grad. and mid. tensor

  int64_t number(const char* key) const { return config.at(key).get<int64_t>(); }
};

enum class GoldenRunner {
  attention,  ///< tests/golden/attention_golden_test.cpp
  model,      ///< tests/golden/model_golden_test.cpp
};

/// Who runs a case; nothing for a case that nobody knows.
inline std::optional<GoldenRunner> golden_runner(const GoldenCase& c) {
  const auto in = [&](std::initializer_list<const char*> words) {
    for (const char* word : words) {
      if (c.mechanism == word) return true;
    }
    return false;
  };
  const bool built = in({"softmax", "polynomial", "random_sketch", "random_sketch_mixed",
                         "learned_sketch", "learned_sketch_mixed"});
  if (c.kind == "attn" && built) return GoldenRunner::attention;
  if (c.kind == "layer" && in({"sketch"})) return GoldenRunner::attention;
  if (c.kind == "fn" && (c.mechanism.rfind("polynomial", 0) == 0 || in({"performer_favor"})))
    return GoldenRunner::attention;
  if (c.kind == "fn" && in({"lt_multiply", "tensor_lt_multiply", "mixed_tensor_lt_multiply"}))
    return GoldenRunner::attention;
  if ((c.kind == "model" || c.kind == "train") && built) return GoldenRunner::model;
  if (c.kind == "layer" && in({"rope", "sinusoidal", "norm", "glu"})) return GoldenRunner::model;
  return std::nullopt;
}

/// Every case of the manifest, or nothing if there is no golden folder here.
inline std::optional<std::vector<GoldenCase>> golden_cases() {
  const auto folder = shared_folder("golden", "POLYSKETCH_GOLDEN");
  if (!folder) return std::nullopt;
  const nlohmann::json manifest = nlohmann::json::parse(read_text(*folder / "manifest.json"));
  std::vector<GoldenCase> cases;
  for (const auto& [file, entry] : manifest.at("files").items()) {
    GoldenCase c;
    c.name = std::filesystem::path(file).stem().string();
    const size_t word = c.name.find('_');
    c.kind = c.name.substr(0, word);
    c.config = entry.at("config");
    c.mechanism = c.config.contains("attention")
                      ? c.config.at("attention").get<std::string>()
                      : c.name.substr(std::min(word, c.name.size() - 1) + 1);
    c.file = *folder / file;
    const auto& parameters = entry.at("parameters_from");
    c.parameters_file = parameters.is_null() ? c.file : *folder / parameters.get<std::string>();
    for (const auto& [tensor, bounds] : entry.at("tolerance").items()) {
      GoldenTolerance tolerance;
      if (bounds.contains("max_abs")) tolerance.max_abs = bounds.at("max_abs").get<double>();
      if (bounds.contains("rms")) tolerance.rms = bounds.at("rms").get<double>();
      c.tolerances[tensor] = tolerance;
    }
    cases.push_back(std::move(c));
  }
  return cases;
}

inline std::vector<GoldenCase> golden_cases_of(GoldenRunner runner) {
  std::vector<GoldenCase> chosen;
  for (GoldenCase& c : golden_cases().value_or(std::vector<GoldenCase>{})) {
    if (golden_runner(c) == runner) chosen.push_back(std::move(c));
  }
  return chosen;
}

}  // namespace polysketch::test
