// SPDX-License-Identifier: Apache-2.0
#include "reporting/evaluation_record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::read_text;
using test::TemporaryFolder;
using test::write_text;
using testing::HasSubstr;

EvaluationRecord example(int64_t step) {
  EvaluationRecord record;
  record.task = "perplexity";
  record.step = step;
  record.tokens = 1000 * step;
  record.checkpoint = "step 20 0123456789abcdef";
  record.measured = {{"corpus", "text"}, {"split", "test"}, {"window", 64}};
  record.figures = {{"perplexity", 12.5}, {"nats_per_token", 2.53}};
  record.device = "a CPU";
  record.program = "polysketch";
  return record;
}

std::string errors_of(const std::function<void()>& action) {
  testing::internal::CaptureStderr();
  action();
  return testing::internal::GetCapturedStderr();
}

TEST(EvaluationRecord, ComesBackAsItWasKept) {
  const TemporaryFolder run;
  keep_evaluation(run.path(), example(20));
  keep_evaluation(run.path(), example(10));
  const KeptEvaluations kept = read_evaluations(run.path());
  ASSERT_EQ(kept.records.size(), 2U);
  EXPECT_EQ(kept.damaged_rows, 0);
  const EvaluationRecord& first = kept.records[0];
  const EvaluationRecord want = example(20);
  EXPECT_EQ(first.task, want.task);
  EXPECT_EQ(first.step, want.step);
  EXPECT_EQ(first.tokens, want.tokens);
  EXPECT_EQ(first.checkpoint, want.checkpoint);
  EXPECT_EQ(first.measured, want.measured);
  EXPECT_EQ(first.figures, want.figures);
  EXPECT_EQ(first.device, want.device);
  EXPECT_EQ(first.program, want.program);
  EXPECT_GT(first.time, 1.7e9);
  EXPECT_EQ(kept.records[1].step, 10);
  EXPECT_TRUE(read_evaluations(run / "absent").records.empty());
}

TEST(EvaluationRecord, TasksToComeAreNoDamage) {
  const TemporaryFolder run;
  write_text(run / "evaluations.jsonl",
             R"({"task":"multiple choice","step":5,"measured":{"dataset":"piqa","shots":5},)"
             R"("figures":{"accuracy":0.61,"interval":[0.58,0.64]},"mood":{"good":[1]}})"
             "\n");
  const KeptEvaluations kept = read_evaluations(run.path());
  ASSERT_EQ(kept.records.size(), 1U);
  EXPECT_EQ(kept.records[0].task, "multiple choice");
  EXPECT_EQ(kept.records[0].figures["interval"][1], 0.64);
  EXPECT_EQ(kept.records[0].time, 0);
  EXPECT_EQ(kept.damaged_rows, 0);
}

TEST(EvaluationRecord, DamagedRowsAreCounted) {
  const TemporaryFolder run;
  keep_evaluation(run.path(), example(20));
  const std::string good = read_text(run / "evaluations.jsonl");
  const std::vector<std::string> bad{
      "nonsense",
      "[1]",
      "\xff",
      R"({"task":"perplexity","step":5,"measured":{}})",
      R"({"task":"perplexity","step":"5","measured":{},"figures":{}})",
      R"({"task":"perplexity","step":5.5,"measured":{},"figures":{}})",
      R"({"task":"perplexity","step":5,"measured":[],"figures":{}})",
      R"({"task":7,"step":5,"measured":{},"figures":{}})"};
  std::string text;
  for (const std::string& row : bad) text += row + "\n" + good;
  write_text(run / "evaluations.jsonl", text + good.substr(0, good.size() / 2));
  const KeptEvaluations kept = read_evaluations(run.path());
  EXPECT_EQ(kept.records.size(), bad.size());
  EXPECT_EQ(kept.damaged_rows, static_cast<int64_t>(bad.size()) + 1);
}

TEST(EvaluationRecord, BeginsALineOfItsOwnAfterATornOne) {
  const TemporaryFolder run;
  write_text(run / "evaluations.jsonl", "{\"task\":\"perpl");
  keep_evaluation(run.path(), example(20));
  const KeptEvaluations kept = read_evaluations(run.path());
  EXPECT_EQ(kept.records.size(), 1U);
  EXPECT_EQ(kept.damaged_rows, 1);
}

TEST(EvaluationRecord, SeveralProcessesKeepWholeRows) {
  const TemporaryFolder run;
  constexpr int processes = 4, rows = 15;
  EvaluationRecord large = example(20);
  large.measured["changed"] = std::string(20'000, 'x');
  std::vector<pid_t> children;
  for (int i = 0; i < processes; ++i) {
    children.push_back(fork());
    if (children.back() == 0) {
      for (int row = 0; row < rows; ++row) keep_evaluation(run.path(), large);
      _exit(0);
    }
  }
  for (const pid_t child : children) {
    int status = 1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const KeptEvaluations kept = read_evaluations(run.path());
  EXPECT_EQ(kept.records.size(), static_cast<size_t>(processes * rows));
  EXPECT_EQ(kept.damaged_rows, 0);
}

TEST(EvaluationRecord, AFolderThatCannotBeWrittenCostsAWarning) {
  const TemporaryFolder run;
  fs::create_directories(run / "evaluations.jsonl");
  const std::string errors = errors_of([&] { keep_evaluation(run.path(), example(20)); });
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
  EXPECT_THAT(errors, HasSubstr("the result is not kept in the run"));
  const std::string gone = errors_of([&] { keep_evaluation(run / "gone", example(20)); });
  EXPECT_THAT(gone, HasSubstr("the result is not kept"));
  EXPECT_FALSE(fs::exists(run / "gone")) << "a folder that was removed stays away";
}

TEST(EvaluationRecord, ACheckpointBelongsToTheRunAboveIt) {
  const TemporaryFolder folder;
  const fs::path run = folder / "run", step = run / "checkpoints" / "step-00000010";
  fs::create_directories(step);
  EXPECT_EQ(run_of_checkpoint(step), std::nullopt) << "nothing says that it is a run";
  write_text(run / "metrics.jsonl", "");
  EXPECT_EQ(run_of_checkpoint(step), run);
  EXPECT_EQ(run_of_checkpoint(step / ""), run);
  EXPECT_EQ(run_of_checkpoint(run / "." / "checkpoints" / "x" / ".." / "step-00000010"), run);

  const fs::path copy = folder / "copies" / "step-00000010";
  fs::create_directories(copy);
  EXPECT_EQ(run_of_checkpoint(copy), std::nullopt);

  fs::create_directory_symlink(step, folder / "best");
  EXPECT_EQ(run_of_checkpoint(folder / "best"), fs::canonical(run));

  // checkpoints on another disk
  const fs::path other = folder / "other";
  fs::create_directories(other);
  write_text(other / "config.yaml", "");
  fs::create_directories(folder / "large disk" / "step-00000005");
  fs::create_directory_symlink(folder / "large disk", other / "checkpoints");
  EXPECT_EQ(run_of_checkpoint(other / "checkpoints" / "step-00000005"), other);

  const fs::path before = fs::current_path();
  fs::current_path(run / "checkpoints");
  EXPECT_EQ(run_of_checkpoint("step-00000010"), fs::canonical(run));
  fs::current_path(before);
}

}  // namespace
}  // namespace polysketch
