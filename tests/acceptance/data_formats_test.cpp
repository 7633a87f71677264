// SPDX-License-Identifier: Apache-2.0
// A few steps on the real corpora, in each format that they come in. The files lie outside the
// repository; without them the tests skip.
#include <gmock/gmock.h>

#include <fstream>

#include "acceptance/workplace.hpp"
#include "data/corpus_files.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;

struct Source {
  std::string name;  ///< of the test
  std::string corpus;
  /// in configs/; without it, or where it is not there, the small configuration of these tests
  std::string config;
  std::string folder;  ///< in the shared data
  Words settings = {};
  bool has_test_split = true;
};

class RealCorpus : public testing::TestWithParam<Source> {
 protected:
  void SetUp() override {
    const auto data = shared_folder("data", "POLYSKETCH_DATA");
    if (!data)
      GTEST_SKIP() << "no ../shared/data with real files of the corpora (POLYSKETCH_DATA names "
                      "another folder)";
    root_ = *data / GetParam().folder;
    if (!fs::is_directory(root_)) GTEST_SKIP() << root_ << " is not there";
  }

  /// Trains on a root, from the configuration of the repository made small, or from the one of
  /// these tests.
  void learn(const fs::path& root, const Words& more = {}) const {
    const Source& source = GetParam();
    const std::string name = "real_" + source.name;
    const fs::path run = workplace().run(name),
                   config = source_folder() / "configs" / source.config;
    fs::remove_all(run);
    const bool given = !source.config.empty() && fs::exists(config);
    Words words{"train", given ? config.string() : workplace().config().string()};
    Words settings{"run.directory=" + run.string(),
                   "data.corpus=" + source.corpus,
                   "data.root=" + root.string(),
                   "data.context=64",
                   "data.cache=" + (workplace().path() / "cache").string(),
                   "data.tokenizer.path=" + workplace().tokenizer().string(),
                   "model.size=custom",
                   "model.layers=2",
                   "model.width=32",
                   "model.heads=2",
                   "model.vocabulary=" + std::to_string(Workplace::kVocabulary),
                   "training.batch_tokens=1024",
                   "training.micro_batch_tokens=0",
                   "training.steps=20",
                   "training.device=cpu",
                   "training.threads=1",
                   "training.precision=fp32",
                   "schedule.peak=1e-2",
                   "schedule.warmup=3",
                   "evaluation.every=20",
                   "evaluation.split=validation",
                   "evaluation.tokens=2k",
                   "logging.every=5"};
    settings.insert(settings.end(), source.settings.begin(), source.settings.end());
    settings.insert(settings.end(), more.begin(), more.end());
    for (const auto& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    const ProcessResult result = polysketch(words);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    ASSERT_EQ(metric_rows(run, "step").size(), 20u);
    expect_falling_loss(run, 0.3);
    EXPECT_EQ(metric_rows(run, "validation").size(), 1u);
    const ProcessResult score =
        polysketch({"evaluate", "perplexity", run.string(), "--split",
                    source.has_test_split ? "test" : "validation", "--tokens", "2k", "--json"});
    ASSERT_EQ(score.exit_code, 0) << score.err;
    EXPECT_LT(Row::parse(score.out).at("perplexity").get<double>(), Workplace::kVocabulary);
  }

  fs::path root_;
};

TEST_P(RealCorpus, IsLearnedFrom) { learn(root_); }

INSTANTIATE_TEST_SUITE_P(
    Formats, RealCorpus,
    testing::Values(Source{"pg19", "pg19", "pg19/small-1k-softmax.yaml", "pg19"},
                    Source{"pg19_polynomial",
                           "pg19",
                           "pg19/small-1k-polynomial.yaml",
                           "pg19",
                           {"attention.kind=polynomial"}},
                    Source{"wiki40b_json_lines",
                           "wiki40b",
                           "wiki40b/small-1k-softmax.yaml",
                           "wikipedia/wiki40b_format",
                           {"data.cleaning=plain"}},
                    Source{"c4_json_gz", "c4", "c4/small-8k-softmax.yaml", "c4/en", {}, false},
                    Source{"c4_tfrecord", "c4", "c4/small-8k-softmax.yaml", "c4/tfds", {}, false},
                    Source{
                        "c4_parquet", "c4", "c4/small-8k-softmax.yaml", "c4/parquet", {}, false}),
    [](const auto& given) { return given.param.name; });

/// Wiki-40B comes as TFRecord and Parquet too: the same articles, put into these forms.
class Wiki40b : public RealCorpus {
 protected:
  /// Texts of a split of the real JSON lines.
  std::vector<std::string> texts(const std::string& split) const {
    std::vector<std::string> texts;
    for (const auto& entry : fs::recursive_directory_iterator(root_)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with("en-" + split) || !name.ends_with(".jsonl")) continue;
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);)
        texts.push_back(Row::parse(line).at("text").get<std::string>());
    }
    return texts;
  }
};

TEST_P(Wiki40b, InOtherForms) {
  const bool parquet = GetParam().name.ends_with("parquet");
  TemporaryFolder folder;
  size_t documents = 0;
  for (const char* split : {"train", "validation", "test"}) {
    const auto all = texts(split);
    documents += all.size();
    if (parquet) {
      write_parquet(folder / fmt::format("{}-00000-of-00001.parquet", split), "text",
                    {all.begin(), all.end()});
      continue;
    }
    std::string records;
    for (const auto& text : all)
      records += tfrecord(example({{"text", text}, {"wikidata_id", "Q1"}, {"version_id", "1"}}));
    write_text(folder / fmt::format("wiki40b-{}.tfrecord-00000-of-00001", split), records);
  }
  ASSERT_GT(documents, 90u);
  // The form does not change what is read: in the order on disk, all ids that a run consumes are
  // the same.
  const auto digest = [&](const fs::path& root) {
    learn(root, {"data.shuffle.enabled=false"});
    return metric_rows(workplace().run("real_" + GetParam().name), "step")
        .back()
        .at("token_digest");
  };
  EXPECT_EQ(digest(folder.path()), digest(root_));
}

INSTANTIATE_TEST_SUITE_P(Forms, Wiki40b,
                         testing::Values(Source{"wiki40b_tfrecord",
                                                "wiki40b",
                                                "wiki40b/small-1k-softmax.yaml",
                                                "wikipedia/wiki40b_format",
                                                {"data.cleaning=plain"}},
                                         Source{"wiki40b_parquet",
                                                "wiki40b",
                                                "wiki40b/small-1k-softmax.yaml",
                                                "wikipedia/wiki40b_format",
                                                {"data.cleaning=plain"}}),
                         [](const auto& given) { return given.param.name; });

}  // namespace
}  // namespace polysketch::test
