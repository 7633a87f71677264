// SPDX-License-Identifier: Apache-2.0
// Properties that every key has, present and future.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "config_helpers.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

TEST(Keys, AreUniqueAndDescribed) {
  Config config;
  std::set<std::string> paths;
  for (const auto& field : list_fields(config)) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path;
    EXPECT_TRUE(field.meaning.ends_with('.')) << field.path;
    EXPECT_NE(field.path.find('.'), std::string::npos) << field.path;
    EXPECT_NO_THROW(section_meaning(field.path.substr(0, field.path.rfind('.')))) << field.path;
  }
  EXPECT_GT(paths.size(), 50u);
}

TEST(Keys, RealsAreShortAndExact) {
  Config config;
  const std::pair<double, const char*> cases[] = {{7e-4, "0.0007"},
                                                  {1e-8, "1.0e-8"},
                                                  {1.5e-300, "1.5e-300"},
                                                  {0.1 + 0.2, "0.30000000000000004"},
                                                  {1e20, "1.0e+20"},
                                                  {3, "3"},
                                                  {0, "0"}};
  for (const auto& [value, text] : cases) {
    config.optimizer.clip = value;
    EXPECT_EQ(value_text(config, "optimizer.clip"), text);
    EXPECT_EQ(load_config("", {std::string("optimizer.clip=") + text}).optimizer.clip, value);
  }
}

TEST(Keys, DefaultsLieInTheirRanges) {
  Config config;
  for (auto& field : list_fields(config)) {
    const std::string before = field.text();
    const auto refusal = field.set(before, field.slot.index() != 3);
    EXPECT_FALSE(refusal.has_value()) << field.path << " = " << before;
    EXPECT_EQ(field.text(), before);
  }
  EXPECT_NO_THROW(load_config(""));
}

// Values that some key of the kind may take; each key takes at least one that is not its default.
std::vector<std::string> candidates(const Field& field) {
  switch (field.slot.index()) {
    case 0:
      return {"2", "4", "64", "128", "1536", "2048", "524288"};
    case 1:
      return {"0.25", "0.5", "2.5"};
    case 2:
      return {"true", "false"};
    case 3:
      return {"cuda:3", "some-word", "/a/b"};
    default:
      return std::get<ChoiceSlot>(field.slot).names;
  }
}

TEST(Keys, EachIsSetByYamlAndBySetAlike) {
  const Config defaults = load_config("");
  Config unused;
  std::vector<std::string> single = {"optimizer.kind"};  // the only choice so far
  for (const auto& field : list_fields(unused)) {
    const std::vector<std::string> extra =
        field.path == "schedule.warmup" || field.path == "training.steps"
            ? std::vector<std::string>{"schedule.warmup=1"}
            : std::vector<std::string>{};
    const Config basis = load_config("", extra);
    int changed = 0;
    for (const auto& value : candidates(field)) {
      const std::vector<std::string> overrides = {field.path + "=" + value};
      std::vector<std::string> all = extra;
      all.push_back(overrides[0]);
      if (!test::load_errors("", all).empty()) continue;
      const Config by_set = load_config("", all);
      const test::TemporaryFolder folder;
      test::write_text(folder / "c.yaml", test::nested_yaml(field.path, value));
      std::vector<std::string> rest =
          field.path == "schedule.warmup" ? std::vector<std::string>{} : extra;
      const Config by_file = load_config(folder / "c.yaml", rest);
      EXPECT_THAT(config_difference(by_set, by_file), testing::IsEmpty()) << field.path;
      EXPECT_EQ(value_text(by_set, field.path), value) << field.path;
      if (!config_difference(basis, by_set).empty()) ++changed;
    }
    if (std::find(single.begin(), single.end(), field.path) == single.end()) {
      EXPECT_GT(changed, 0) << field.path << " never changed";
    }
  }
}

// A random configuration that obeys the rules between keys.
Config random_config(uint64_t stream) {
  Philox random(1, RandomPurpose::test, stream);
  Config config;
  for (auto& field : list_fields(config)) {
    switch (field.slot.index()) {
      case 0:
        *std::get<int64_t*>(field.slot) =
            field.least +
            static_cast<int64_t>(random.bounded(
                std::min<uint64_t>(static_cast<uint64_t>(field.most - field.least), 60) + 1));
        break;
      case 1: {
        const double high = field.high > 1 ? 1e3 : field.high;
        *std::get<double*>(field.slot) =
            field.low + (high - field.low) * (0.001 + 0.99 * random.uniform());
        break;
      }
      case 2:
        *std::get<bool*>(field.slot) = random.bounded(2) == 1;
        break;
      case 3: {
        const std::vector<std::string> texts = {
            "",    "no",   "1e5",  "null", "~",   "a b", "x: y",  "# z",
            "'",   "\"",   "\\",   "é漢😀", "{a}", "- b", " lead", "s3://bucket/x?y=1",
            "010", "*a",   "&a",   "!t",   "%d",  "@e",  "<<",    "base",
            "$x",  "a #b", "TRUE", "-",    "cuda"};
        if (field.pattern.empty())
          *std::get<std::string*>(field.slot) = texts[random.bounded(texts.size())];
        break;
      }
      default: {
        const auto& choice = std::get<ChoiceSlot>(field.slot);
        choice.set(random.bounded(choice.names.size()));
      }
    }
  }
  config.model.layers = 3;
  config.model.heads = 1 + static_cast<int64_t>(random.bounded(8));
  config.model.width = config.model.heads * 2 * (1 + static_cast<int64_t>(random.bounded(64)));
  config.model.hidden = 8;
  config.attention.degree = int64_t{2} << random.bounded(5);
  config.attention.features = 2 * static_cast<int64_t>(random.bounded(100));
  config.training.micro_batch_tokens =
      config.data.context * (1 + static_cast<int64_t>(random.bounded(4)));
  config.training.batch_tokens =
      config.training.micro_batch_tokens * (1 + static_cast<int64_t>(random.bounded(4)));
  config.schedule.warmup =
      static_cast<int64_t>(random.bounded(static_cast<uint64_t>(config.training.steps) + 1));
  config.run.directory = "runs/${run.name}-x";
  return config;
}

TEST(RoundTrip, YamlAndJsonKeepEveryValue) {
  const test::TemporaryFolder folder;
  for (uint64_t i = 0; i < 200; ++i) {
    Config config = random_config(i);
    test::write_text(folder / "c.yaml", to_yaml(config));
    const ResolvedConfig loaded = resolve_config(folder / "c.yaml");
    config.run.directory = "runs/run-x";
    ASSERT_THAT(config_difference(config, loaded.config), testing::IsEmpty());
    EXPECT_EQ(to_yaml(config), to_yaml(loaded.config));
    test::write_text(folder / "d.yaml", to_yaml(loaded));  // with comments
    ASSERT_THAT(config_difference(config, load_config(folder / "d.yaml")), testing::IsEmpty());
    const auto json = nlohmann::json::parse(to_json(config).dump());
    ASSERT_THAT(config_difference(config, config_from_json(json)), testing::IsEmpty());
  }
}

TEST(RoundTrip, AResolvedConfigurationStaysAsItIs) {
  for (const std::string size : {"small", "medium", "large"}) {
    const test::TemporaryFolder folder;
    const Config config = load_config("", {"model.size=" + size, "run.name=r-1"});
    test::write_text(folder / "c.yaml", to_yaml(config));
    EXPECT_EQ(to_yaml(load_config(folder / "c.yaml")), to_yaml(config));
    EXPECT_EQ(config.run.directory, "runs/r-1");
  }
}

void collect(const nlohmann::ordered_json& schema, const std::string& prefix,
             std::vector<std::string>& paths) {
  EXPECT_EQ(schema["additionalProperties"], false) << prefix;
  for (const auto& [name, property] : schema["properties"].items()) {
    EXPECT_TRUE(property.contains("description")) << prefix + name;
    if (property.contains("properties")) {
      collect(property, prefix + name + ".", paths);
    } else {
      EXPECT_TRUE(prefix + name == "base" || property.contains("default")) << prefix + name;
      paths.push_back(prefix + name);
    }
  }
}

TEST(Schema, ListsExactlyTheKeys) {
  std::vector<std::string> expected = test::all_paths(), found;
  expected.insert(expected.begin(), "base");
  collect(config_schema(), "", found);
  EXPECT_EQ(found, expected);
}

TEST(Reference, NamesEveryKey) {
  const std::string page = config_reference();
  for (const auto& path : test::all_paths())
    EXPECT_NE(page.find("| `" + path + "` |"), std::string::npos) << path;
  EXPECT_THAT(page, testing::HasSubstr("| small | 12 | 768 | 12 | 2048 |\n| medium | 24 | 1024 | "
                                       "16 | 2728 |\n| large | 36 | 1280 | 20 | 3408 |\n"));
}

TEST(Reference, EverySectionHasAnExampleThatLoads) {
  const std::string page = config_reference();
  const test::TemporaryFolder folder;
  test::write_text(folder / "configs/recipe.yaml", "schedule: {kind: linear}\n");
  size_t examples = 0;
  for (size_t at = page.find("```yaml\n"); at != std::string::npos;
       at = page.find("```yaml\n", at + 1), ++examples) {
    const size_t begin = at + 8;
    test::write_text(folder / "c.yaml", page.substr(begin, page.find("\n```", begin) - begin));
    EXPECT_THAT(test::load_errors(folder / "c.yaml"), testing::IsEmpty());
  }
  EXPECT_EQ(examples, 12u) << "one of a whole file, one of each section";
  for (size_t at = 0; at < page.size();) {
    const size_t end = page.find('\n', at);
    if (page[at] != '|') {
      EXPECT_LE(end - at, 120u) << page.substr(at, end - at);
    }
    at = end + 1;
  }
}

TEST(Reference, FilesInTheRepositoryAreCurrent) {
  EXPECT_EQ(test::read_text(test::source_folder() / "docs/configuration.md"), config_reference())
      << "polysketch config reference > docs/configuration.md";
  EXPECT_EQ(test::read_text(test::source_folder() / "configs/schema.json"),
            config_schema().dump(2) + "\n")
      << "polysketch config schema > configs/schema.json";
}

TEST(Json, IsStrict) {
  const auto refused = [](const char* text) {
    try {
      config_from_json(nlohmann::json::parse(text));
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::config);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused("{}"), "");
  EXPECT_EQ(config_from_json(to_json(load_config("")), {"training.steps=20k"}).training.steps,
            20'000)
      << "overrides come last";
  EXPECT_EQ(refused(R"({"optimizer": {"clip": 1}, "training": {"steps": 20000}})"), "");
  EXPECT_THAT(refused(R"({"training": {"step": 5}})"),
              testing::HasSubstr("did you mean 'training.steps'?"));
  EXPECT_THAT(refused(R"({"training": {"steps": "5"}})"),
              testing::HasSubstr("training.steps: got string, want a count"));
  EXPECT_THAT(refused(R"({"training": {"steps": 5.0}})"),
              testing::HasSubstr("training.steps: got number"));
  EXPECT_THAT(refused(R"({"training": {"steps": -5}})"),
              testing::HasSubstr("training.steps: got '-5'"));
  EXPECT_THAT(refused(R"({"training": {"steps": 18446744073709551615}})"),
              testing::HasSubstr("training.steps"));
  EXPECT_THAT(refused(R"({"training": null, "model": {"recompute": 1}})"),
              testing::HasSubstr("\n"));
  EXPECT_THAT(refused("[]"), testing::HasSubstr("want an object"));
}

/// A new key is fixed on resume until somebody has thought about it here, too.
TEST(Keys, WhatAChangeMeansToARunThatGoesOn) {
  Config config;
  std::vector<std::string> free, asks, own;
  for (const auto& field : list_fields(config)) {
    const std::string section = field.path.substr(0, field.path.find('.'));
    const bool whole = section == "evaluation" || section == "checkpoint" || section == "logging" ||
                       section == "optimizer" || section == "schedule";
    if (whole) {
      EXPECT_EQ(field.effect,
                section == "optimizer" || section == "schedule" ? Effect::recipe : Effect::free)
          << field.path;
    } else if (field.effect != Effect::model) {
      (field.effect == Effect::free ? free : asks).push_back(field.path);
    }
    if (field.per_process && section != "logging") own.push_back(field.path);
    EXPECT_TRUE(!field.per_process || field.effect == Effect::free) << field.path;
  }
  EXPECT_THAT(free,
              testing::ElementsAre("run.name", "run.directory", "model.recompute", "data.root",
                                   "data.tokenizer.path", "data.cache", "data.on_error",
                                   "data.max_bad_fraction", "data.max_bad_in_a_row", "data.threads",
                                   "training.micro_batch_tokens", "training.device",
                                   "training.threads", "distributed.address", "distributed.timeout",
                                   "distributed.step_timeout", "distributed.bucket_bytes",
                                   "distributed.shard_optimizer", "distributed.check_replicas",
                                   "distributed.straggler", "distributed.bind_cpus"));
  EXPECT_THAT(asks, testing::ElementsAre("run.seed", "training.steps", "training.precision",
                                         "distributed.reduce", "distributed.shards",
                                         "distributed.reduce_type"));
  EXPECT_THAT(own,
              testing::ElementsAre("data.root", "data.tokenizer.path", "data.cache", "data.threads",
                                   "training.device", "training.threads", "distributed.address"));
}

}  // namespace
}  // namespace polysketch
