// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "config/yaml_reader.hpp"
#include "config_helpers.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> shipped_configs() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(test::source_folder() / "configs")) {
    if (entry.path().extension() == ".yaml") found.push_back(entry.path());
  }
  return found;
}

/// A file that is a base of others and no run of its own.
bool is_base(const fs::path& path) {
  return path.filename() == "base.yaml" || path.filename() == "recipe.yaml" ||
         path.filename() == "small.yaml";
}

TEST(ShippedConfigs, AllLoad) {
  const std::vector<fs::path> files = shipped_configs();
  EXPECT_GT(files.size(), 40u);
  for (const fs::path& file : files)
    EXPECT_THAT(test::load_errors(file), testing::IsEmpty()) << file;
}

/// Every scalar of a tree of YAML with the path of its keys.
void each_scalar(const YamlNode& node, const std::string& path,
                 const std::function<void(const std::string&, const YamlNode&)>& look) {
  if (node.kind == YamlNode::Kind::scalar) return look(path, node);
  for (size_t i = 0; i + 1 < node.children.size(); i += 2) {
    const std::string name = node.children[i].text;
    each_scalar(node.children[i + 1], path.empty() ? name : path + "." + name, look);
  }
}

/// YAML 1.1, which Python reads, takes 7e-4 for text.
TEST(ShippedConfigs, RealNumbersAreNumbersInYaml11) {
  Config config;
  std::set<std::string> reals;
  for (const Field& field : list_fields(config)) {
    if (std::holds_alternative<double*>(field.slot)) reals.insert(field.path);
  }
  const std::regex number("[0-9]+|[0-9]+\\.[0-9]*([eE][-+][0-9]+)?");
  int checked = 0;
  for (const fs::path& file : shipped_configs()) {
    each_scalar(parse_yaml(test::read_text(file), file.string()), "",
                [&](const std::string& path, const YamlNode& value) {
                  if (!reals.contains(path)) return;
                  ++checked;
                  EXPECT_TRUE(std::regex_match(value.text, number))
                      << file << ": " << path << ": " << value.text;
                });
  }
  EXPECT_GT(checked, 5);
}

/// As an editor or a script of other people sees them.
TEST(ShippedConfigs, FitTheShippedSchemaInPython) {
  const auto available = test::run_process({"python3", "-c", "import yaml, jsonschema"});
  if (available.exit_code != 0)
    GTEST_SKIP() << "needs python3 with the packages yaml and jsonschema";
  const char* script = R"(
import json, sys, yaml, jsonschema
validator = jsonschema.Draft202012Validator(json.load(open(sys.argv[1])))
for name in sys.argv[2:]:
    for error in validator.iter_errors(yaml.safe_load(open(name))):
        print(f"{name}: {error.json_path}: {error.message}"))";
  std::vector<std::string> command{"python3", "-c", script,
                                   (test::source_folder() / "configs/schema.json").string()};
  for (const fs::path& file : shipped_configs()) command.push_back(file.string());
  const auto result = test::run_process(command);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "");
}

TEST(ShippedConfigs, BeginWithTheirSchemaForEditors) {
  const std::string mark = "# yaml-language-server: $schema=";
  for (const fs::path& file : shipped_configs()) {
    const std::string text = test::read_text(file);
    ASSERT_THAT(text, testing::StartsWith(mark)) << file;
    const std::string path = text.substr(mark.size(), text.find('\n') - mark.size());
    EXPECT_TRUE(
        fs::equivalent(file.parent_path() / path, test::source_folder() / "configs/schema.json"))
        << file << ": " << path;
  }
}

TEST(ShippedConfigs, EveryRunHasItsOwnFolder) {
  std::map<std::string, fs::path> owner;
  for (const fs::path& file : shipped_configs()) {
    if (is_base(file)) continue;
    const auto [other, is_new] = owner.emplace(load_config(file).run.directory, file);
    EXPECT_TRUE(is_new) << file << " and " << other->second << " both write " << other->first;
  }
}

bool is_linear(AttentionKind kind) {
  return kind != AttentionKind::softmax && kind != AttentionKind::polynomial;
}

std::string attention_name(const AttentionConfig& attention) {
  switch (attention.kind) {
    case AttentionKind::softmax:
      return "softmax";
    case AttentionKind::polynomial:
      return "polynomial";
    case AttentionKind::performer:
      return "performer";
    case AttentionKind::hedgehog:
      return attention.features == 0 ? "hedgehog"
                                     : "hedgehog-" + std::to_string(attention.features);
    case AttentionKind::sliding_window:
      return "sliding-window";
    case AttentionKind::local_polynomial:
      return "local-polynomial";
    case AttentionKind::polysketch:
      break;
  }
  return std::string(attention.sketch == SketchKind::learned ? "learned" : "random") +
         (attention.local == LocalAttention::exact ? "-local-" : "-") +
         std::to_string(attention.sketch_size);
}

/// Name, size, context and attention of a paper's model are in its path:
/// configs/<corpus>/<size>-<context>-<attention>.yaml.
TEST(ShippedConfigs, NamesSayWhatTheModelIs) {
  int checked = 0;
  for (const fs::path& file : shipped_configs()) {
    const std::string corpus = file.parent_path().filename();
    if (is_base(file) || (corpus != "pg19" && corpus != "wiki40b" && corpus != "c4")) continue;
    const ResolvedConfig resolved = resolve_config(file);
    const Config& config = resolved.config;
    // Models of linear time have a layer more in twelve.
    const std::string size = config.model.layers <= 13   ? "small"
                             : config.model.layers <= 26 ? "medium"
                                                         : "large";
    EXPECT_EQ(config.model.layers % 13 == 0, is_linear(config.attention.kind)) << file;
    const int64_t context = config.data.context;
    const std::string length =
        context < 1024 ? std::to_string(context) : std::to_string(context / 1024) + "k";
    EXPECT_EQ(file.stem().string(), size + "-" + length + "-" + attention_name(config.attention))
        << file;
    EXPECT_EQ(config.run.name, corpus + "-" + file.stem().string());
    EXPECT_EQ(config.data.corpus, corpus) << file;
    EXPECT_EQ(config.attention.degree, 4) << file;
    ++checked;
  }
  EXPECT_EQ(checked, 14 + 14 + 7 + 63);
}

/// The training recipes of the paper: section 4 and appendix E for PG-19 and Wiki-40B, appendix G
/// for C4.
TEST(ShippedConfigs, PaperRecipes) {
  for (const fs::path& file : shipped_configs()) {
    const std::string corpus = file.parent_path().filename();
    if (corpus != "pg19" && corpus != "wiki40b" && corpus != "c4") continue;
    const Config config = load_config(file);
    const bool is_c4 = corpus == "c4";
    EXPECT_EQ(config.training.batch_tokens, is_c4 ? 1 << 19 : 1 << 20) << file;
    EXPECT_EQ(config.training.steps, 125'000) << file;
    EXPECT_EQ(config.model.vocabulary, 32'000) << file;
    EXPECT_EQ(config.schedule.kind, ScheduleKind::linear) << file;
    EXPECT_DOUBLE_EQ(config.schedule.peak, is_c4 ? 3e-4 : 7e-4) << file;
    EXPECT_EQ(config.schedule.warmup, is_c4 ? 12'500 : 10'000) << file;
    EXPECT_DOUBLE_EQ(config.schedule.final_fraction, 0) << file;
    EXPECT_DOUBLE_EQ(config.optimizer.beta1, 0.95) << file;
    EXPECT_DOUBLE_EQ(config.optimizer.beta2, 0.98) << file;
    EXPECT_EQ(config.model.embedding_scale, EmbeddingScale::one) << file;
  }
}

}  // namespace
}  // namespace polysketch
