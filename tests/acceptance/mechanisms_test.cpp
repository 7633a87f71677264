// SPDX-License-Identifier: Apache-2.0
// Training, continuing, evaluating and generating with every attention mechanism, as a user does it.
#include <gmock/gmock.h>

#include <cmath>

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
    Words all{"attention.block=16", "attention.window=16", "attention.sketch_size=16", "evaluation.every=0", "checkpoint.every=6"};
    all.insert(all.end(), GetParam().settings.begin(), GetParam().settings.end());
    return all;
  }
};

const std::vector<Kind> kKinds{
    {"learned_local", {"attention.kind=polysketch"}},
    {"learned", {"attention.kind=polysketch", "attention.local=none"}},
    {"random_local", {"attention.kind=polysketch", "attention.sketch=random"}},
    {"random", {"attention.kind=polysketch", "attention.sketch=random", "attention.local=none", "training.precision=bf16"}},
    {"performer", {"attention.kind=performer", "attention.features=64", "attention.redraw=3"}},
    {"hedgehog", {"attention.kind=hedgehog"}},
    {"sliding_window", {"attention.kind=sliding_window"}},
    {"local_polynomial", {"attention.kind=local_polynomial", "data.mask_documents=true"}}};
INSTANTIATE_TEST_SUITE_P(All, EachKind, testing::ValuesIn(kKinds), [](const auto& tested) { return tested.param.name; });

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
    EXPECT_TRUE(read_text(checkpoint_path(run, saved.back()) / file) == read_text(checkpoint_path(again, saved.back()) / file)) << file;
  }

  EXPECT_TRUE(std::isfinite(perplexity(run)));
  const ProcessResult text = polysketch({"generate", run.string(), "--tokens", "40", "--keep-going", "--json"});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(Row::parse(text.out).at(0).at("tokens"), 40);
}

/// Another attention at evaluation where it learns the same tensors, and a refusal where it does not.
TEST(AttentionSwap, ExactWeightsAndOtherDrawsInPlaceOfARandomSketch) {
  const Words settings{"attention.kind=polysketch", "attention.sketch=random", "attention.block=16", "attention.sketch_size=16",
                       "evaluation.every=0"};
  workplace().train("swap", settings);
  const fs::path run = workplace().run("swap");
  const double own = perplexity(run);
  EXPECT_NE(perplexity(run, {"--set", "attention.kind=polynomial"}), own);
  EXPECT_NE(perplexity(run, {"--set", "run.seed=99"}), own);
  EXPECT_EQ(perplexity(run), own);
  const ProcessResult refused = polysketch({"evaluate", "perplexity", run.string(), "--set", "attention.sketch=learned"});
  EXPECT_EQ(refused.exit_code, 78);
  EXPECT_THAT(refused.err, HasSubstr("attention.sketch"));
}

}  // namespace
}  // namespace polysketch::test
