// SPDX-License-Identifier: Apache-2.0
// What a run makes besides its model while it trains: samples, the checkpoint of its best step, and
// a word on what to do next. None of it changes the training.
#include <gmock/gmock.h>

#include <algorithm>

#include "acceptance/process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kSteps = 12;

class Samples : public testing::TestWithParam<const char*> {
 protected:
  static Words settings(const Words& more) {
    Words all{std::string("attention.kind=") + GetParam(),
              "attention.block=16",
              "attention.window=16",
              "attention.sketch_size=8",
              "attention.features=16",
              "attention.redraw=5",
              "model.dropout=0.1",
              "training.steps=12",
              "evaluation.every=4",
              "checkpoint.every=4",
              "logging.diagnostics=3"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, Samples,
                         testing::Values("softmax", "polysketch", "performer", "hedgehog"));

TEST_P(Samples, AreWrittenAfterEachValidationAndChangeNothing) {
  const std::string name = std::string("samples_") + GetParam();
  workplace().train(name + "_none", settings({}));
  workplace().train(name, settings({"evaluation.samples=2"}));
  const fs::path run = workplace().run(name), plain = workplace().run(name + "_none");
  EXPECT_FALSE(fs::exists(plain / "samples.txt"));
  const std::string text = read_text(run / "samples.txt");
  size_t last = 0;
  for (const char* line : {"=== step 4\n", "=== step 8\n", "=== step 12\n"}) {
    const size_t at = text.find(line);
    ASSERT_NE(at, std::string::npos) << line;
    EXPECT_GE(at, last);
    last = at;
    EXPECT_THAT(text.substr(at, text.find("===", at + 3) - at),
                testing::AllOf(HasSubstr("(seed 1)"), HasSubstr("(seed 2)")));
  }
  std::vector<std::vector<Row>> rows;
  for (const fs::path& folder : {run, plain}) {
    auto& kept = rows.emplace_back();
    for (const Row& row : metric_rows(folder)) {
      if (row["event"] == "checkpoint") continue;  // names the folder
      kept.push_back(lasting(row));
    }
  }
  EXPECT_EQ(rows[0], rows[1]);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_TRUE(read_text(checkpoint_path(run, kSteps) / file) ==
                read_text(checkpoint_path(plain, kSteps) / file))
        << file;
  }

  // A run that goes on from an earlier step makes the later samples again.
  const fs::path again = workplace().run(name + "_again");
  fs::copy(run, again, fs::copy_options::recursive);
  for (const int64_t step : {8, 12}) fs::remove_all(checkpoint_path(again, step));
  workplace().train(name + "_again", settings({"evaluation.samples=2"}));
  EXPECT_EQ(read_text(again / "samples.txt"), text);
}

TEST(SamplesOfProcesses, AreWrittenByTheFirst) {
  const Words settings{"training.steps=4", "evaluation.every=2", "evaluation.samples=1"};
  workplace().train("samples_alone", settings);
  ProcessGroup group(2, workplace().train_command("samples_together", settings));
  EXPECT_EQ(group.wait(), std::vector<int>(2, 0)) << group.errors();
  EXPECT_THAT(read_text(workplace().run("samples_together") / "samples.txt"),
              testing::AllOf(HasSubstr("=== step 2\n"), HasSubstr("=== step 4\n")));
}

/// A learning rate that grows until training falls apart.
TEST(BestCheckpoint, OfTheLowestValidationLossStays) {
  const Words settings{"training.steps=30",      "evaluation.every=3",     "checkpoint.every=3",
                       "checkpoint.keep_last=1", "schedule.kind=constant", "schedule.peak=3",
                       "schedule.warmup=30"};
  workplace().train("best", settings);
  const auto validations = metric_rows(workplace().run("best"), "validation");
  const auto best =
      std::min_element(validations.begin(), validations.end(),
                       [](const Row& a, const Row& b) { return a["loss"] < b["loss"]; });
  const auto step = (*best)["step"].get<int64_t>();
  ASSERT_LT(step, 30) << "this is about a run whose best step is not its last";
  EXPECT_THAT(checkpoint_steps(workplace().run("best")), testing::ElementsAre(step, 30));

  // It is known to a run that goes on.
  Words more = settings;
  more.emplace_back("training.steps=36");
  Words command = workplace().train_command("best", more);
  command.emplace_back("--allow-config-change");
  const ProcessResult result = polysketch(command);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto steps = checkpoint_steps(workplace().run("best"));
  EXPECT_EQ(steps.front(), step);
  EXPECT_EQ(steps.back(), 36);

  Words without = settings;
  without.emplace_back("checkpoint.keep_best=false");
  workplace().train("best_not", without);
  EXPECT_THAT(checkpoint_steps(workplace().run("best_not")), testing::ElementsAre(30));
}

TEST(NextSteps, AreToldAtTheEndOfARunAndWork) {
  const ProcessResult result = workplace().train("next", {"training.steps=4"});
  const size_t at = result.err.find("next: ");
  ASSERT_NE(at, std::string::npos) << result.err;
  const std::string line = result.err.substr(at + 6, result.err.find('\n', at) - at - 6);
  EXPECT_THAT(line, HasSubstr(workplace().run("next").string()));
  const std::string folder = program().parent_path().string();
  const ProcessResult next =
      run_process({"sh", "-e", "-c", "PATH=" + folder + ":$PATH; " + line}, {}, workplace().path());
  EXPECT_EQ(next.exit_code, 0) << next.err;
  EXPECT_THAT(next.out, HasSubstr("perplexity"));
}

TEST(Utilisation, IsKnownOnACpu) {
  workplace().train("utilisation", {"training.steps=4"});
  const auto rows = metric_rows(workplace().run("utilisation"), "step");
  for (const Row& row : rows) {
    EXPECT_GT(row.at("mfu").get<double>(), 0);
    EXPECT_LT(row.at("mfu_causal").get<double>(), row.at("mfu").get<double>());
  }
}

}  // namespace
}  // namespace polysketch::test
