// SPDX-License-Identifier: Apache-2.0
// Training, continuing, evaluating and generating with every attention mechanism, as a user does
// it.
#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "acceptance/workplace.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Kind {
  std::string name;
  Words settings;
};

class EachKind : public testing::TestWithParam<Kind> {
 protected:
  static Words settings() {
    // Contexts of several blocks and windows.
    Words all{"attention.block=16", "attention.window=16", "attention.sketch_size=16",
              "evaluation.every=0", "checkpoint.every=6"};
    all.insert(all.end(), GetParam().settings.begin(), GetParam().settings.end());
    return all;
  }
};

const std::vector<Kind> kKinds{
    {"learned_local", {"attention.kind=polysketch"}},
    {"learned", {"attention.kind=polysketch", "attention.local=none"}},
    {"random_local", {"attention.kind=polysketch", "attention.sketch=random"}},
    {"random",
     {"attention.kind=polysketch", "attention.sketch=random", "attention.local=none",
      "training.precision=bf16"}},
    {"performer", {"attention.kind=performer", "attention.features=64", "attention.redraw=3"}},
    {"hedgehog", {"attention.kind=hedgehog"}},
    {"sliding_window", {"attention.kind=sliding_window"}},
    {"local_polynomial", {"attention.kind=local_polynomial", "data.mask_documents=true"}}};
INSTANTIATE_TEST_SUITE_P(All, EachKind, testing::ValuesIn(kKinds),
                         [](const auto& tested) { return tested.param.name; });

double perplexity(const fs::path& run, const Words& more = {}) {
  Words command{"evaluate", "perplexity", run.string(), "--json"};
  command.insert(command.end(), more.begin(), more.end());
  const ProcessResult result = polysketch(command);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return Row::parse(result.out).at("perplexity").get<double>();
}

TEST_P(EachKind, TrainsContinuesEvaluatesAndGenerates) {
  const std::string name = "kind_" + GetParam().name;
  workplace().train(name, settings());
  const fs::path run = workplace().run(name), again = workplace().run(name + "_again");
  const auto steps = metric_rows(run, "step");
  ASSERT_FALSE(steps.empty());
  EXPECT_LT(steps.back().at("loss").get<double>(), steps.front().at("loss").get<double>());

  // The same from the checkpoint before the last.
  fs::copy(run, again, fs::copy_options::recursive);
  const auto saved = checkpoint_steps(run);
  ASSERT_GE(saved.size(), 2U);
  fs::remove_all(checkpoint_path(again, saved.back()));
  const ProcessResult result = polysketch(workplace().train_command(name + "_again", settings()));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_TRUE(read_text(checkpoint_path(run, saved.back()) / file) ==
                read_text(checkpoint_path(again, saved.back()) / file))
        << file;
  }

  EXPECT_TRUE(std::isfinite(perplexity(run)));
  const ProcessResult text =
      polysketch({"generate", run.string(), "--tokens", "40", "--keep-going", "--json"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(Row::parse(text.out).at(0).at("tokens"), 40);
}

struct Watched {
  std::string name;
  Words settings;
  std::set<std::string> figures;
};

class Diagnostics : public testing::TestWithParam<Watched> {};

INSTANTIATE_TEST_SUITE_P(
    Kinds, Diagnostics,
    testing::Values(Watched{"polysketch",
                            {"attention.kind=polysketch", "attention.block=16",
                             "attention.sketch_size=16"},
                            {"sketch_error", "smallest_normaliser", "largest_score",
                             "share_outside_block", "effective_rank"}},
                    Watched{"performer",
                            {"attention.kind=performer", "attention.block=16",
                             "attention.features=64", "data.mask_documents=true"},
                            {"smallest_normaliser", "share_outside_block", "effective_rank"}},
                    Watched{"softmax",
                            {"attention.kind=softmax", "model.recompute=true"},
                            {"smallest_normaliser", "largest_score", "effective_rank"}}),
    [](const auto& tested) { return tested.param.name; });

/// A run that looks at its weights is the run that does not, and says what its kind has.
TEST_P(Diagnostics, AreRecordedAndChangeNothing) {
  Words settings = GetParam().settings;
  settings.insert(settings.end(), {"training.steps=6", "evaluation.every=0", "checkpoint.every=4",
                                   "training.micro_batch_tokens=512"});
  Words looking = settings;
  looking.emplace_back("logging.diagnostics=2");
  const std::string plain = "plain_" + GetParam().name, watched = "watched_" + GetParam().name;
  workplace().train(plain, settings);
  const ProcessResult result = workplace().train(watched, looking);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_TRUE(read_text(checkpoint_path(workplace().run(plain), 6) / file) ==
                read_text(checkpoint_path(workplace().run(watched), 6) / file))
        << file;
  }
  EXPECT_TRUE(metric_rows(workplace().run(plain), "diagnostics").empty());
  const std::vector<Row> rows = metric_rows(workplace().run(watched), "diagnostics");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_THAT(result.err, HasSubstr("diagnostics at 6 | "));
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    EXPECT_EQ(row.at("step"), 2 * (i + 1));
    EXPECT_EQ(row.at("layers").size(), 2u);
    EXPECT_GE(row.at("queries").get<int64_t>(), 1);
    EXPECT_GE(row.at("keys").get<int64_t>(), row.at("queries").get<int64_t>());
    for (const char* figure : {"sketch_error", "smallest_normaliser", "largest_score",
                               "share_outside_block", "effective_rank"}) {
      // A document of one block has nothing outside of it.
      const bool wanted = GetParam().figures.contains(figure) &&
                          (std::string(figure) != "share_outside_block" || row.contains(figure));
      ASSERT_EQ(row.contains(figure), wanted) << figure;
      ASSERT_EQ(row.contains(figure + std::string("_worst")), wanted) << figure;
      if (!wanted) continue;
      double sum = 0;
      for (const Row& layer : row.at("layers")) sum += layer.at(figure).get<double>();
      EXPECT_NEAR(row.at(figure).get<double>(), sum / 2, 1e-9 * std::abs(sum)) << figure;
      EXPECT_GT(sum, 0) << figure;
    }
  }

  // Continued from an earlier checkpoint the run sees the same.
  const fs::path run = workplace().run(watched);
  fs::remove_all(checkpoint_path(run, 6));
  workplace().train(watched, looking);
  const std::vector<Row> again = metric_rows(run, "diagnostics");
  ASSERT_EQ(again.size(), 3u);
  EXPECT_EQ(lasting(again.back()), lasting(rows.back()));
}

/// Another attention at evaluation where it learns the same tensors, and a refusal where it does
/// not.
TEST(AttentionSwap, ExactWeightsAndOtherDrawsInPlaceOfARandomSketch) {
  const Words settings{"attention.kind=polysketch", "attention.sketch=random", "attention.block=16",
                       "attention.sketch_size=16", "evaluation.every=0"};
  workplace().train("swap", settings);
  const fs::path run = workplace().run("swap");
  const double own = perplexity(run);
  EXPECT_NE(perplexity(run, {"--set", "attention.kind=polynomial"}), own);
  EXPECT_NE(perplexity(run, {"--set", "run.seed=99"}), own);
  EXPECT_EQ(perplexity(run), own);
  const ProcessResult refused =
      polysketch({"evaluate", "perplexity", run.string(), "--set", "attention.sketch=learned"});
  EXPECT_EQ(refused.exit_code, 78);
  EXPECT_THAT(refused.err, HasSubstr("attention.sketch"));
}

}  // namespace
}  // namespace polysketch::test
