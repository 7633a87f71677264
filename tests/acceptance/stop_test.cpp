// SPDX-License-Identifier: Apache-2.0
// Decisions that several processes take together: to stop, to give up, and which checkpoint to
// continue from. Numbers are those of the table "Faults" in docs/distributed.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kWorld = 3;

Words settings(const Words& more = {}) {
  Words all{"training.batch_tokens=768",    "distributed.timeout=60", "distributed.step_timeout=20",
            "distributed.reduce=canonical", "distributed.shards=6",   "logging.tensorboard=false"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// The process has said that it takes the signal itself.
bool hears(pid_t process, int number) {
  std::istringstream lines(read_text(fmt::format("/proc/{}/status", process)));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("SigCgt:"))
      return (std::stoull(line.substr(7), nullptr, 16) >> (number - 1) & 1) != 0;
  }
  return false;
}

/// Fault 38: ten stops at random moments, of a random process by a random signal, in a run that
/// saves and validates often.
TEST(StopTogether, AtAnyMomentAllStopAtTheSameStepAndNothingIsLost) {
  const Workplace& place = workplace();
  const Words more = settings(
      {"training.steps=130", "checkpoint.every=7", "evaluation.every=5", "evaluation.tokens=all"});
  train_together(place, 1, "never-stopped", more);
  const fs::path run = place.run("stopped-often");
  std::mt19937 random(38);
  const auto below = [&](int limit) {
    return static_cast<int>(random() % static_cast<unsigned>(limit));
  };
  std::set<std::string> moments;
  for (int round = 0; round < 10; ++round) {
    ProcessGroup group(kWorld, place.train_command("stopped-often", more));
    const int victim = below(kWorld),
              number = std::array{SIGTERM, SIGINT, SIGUSR1}[static_cast<size_t>(below(3))];
    // From the moment that the signal is heard (as /proc says): once at the start, else after up to
    // 8 steps.
    const int64_t saved = checkpoint_steps(run).empty() ? 0 : checkpoint_steps(run).back();
    const auto heard = [&] { return hears(group[victim].process(), number); };
    ASSERT_TRUE(group[victim].wait_for(heard)) << group.errors();
    const int64_t wanted = round % 4 == 0 ? 0 : saved + 1 + below(8);
    if (wanted > 0) {
      ASSERT_TRUE(group[0].wait_for([&] {
        return static_cast<int64_t>(metric_rows(run, "step").size()) >= wanted;
      })) << group.errors();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(below(40)));
    group[victim].signal(number);
    ASSERT_EQ(group.wait(), std::vector<int>(kWorld, 75)) << "round " << round << "\n"
                                                          << group.errors();
    const auto rows = metric_rows(run);
    ASSERT_FALSE(rows.empty());
    EXPECT_EQ(rows.back().at("event"), "stop");
    const auto steps = static_cast<int64_t>(metric_rows(run, "step").size());
    EXPECT_EQ(checkpoint_steps(run).back(), steps) << "round " << round;
    moments.insert(rows.at(rows.size() - 2).at("event").get<std::string>());
  }
  RecordProperty("moments", testing::PrintToString(moments));
  train_together(place, kWorld, "stopped-often", more);
  EXPECT_EQ(losses_of(run), losses_of(place.run("never-stopped")));
  EXPECT_TRUE(tensors_of(run) == tensors_of(place.run("never-stopped")));
}

/// Fault 35: a rate that is far too high; the sums of all turn infinite.
TEST(StopTogether, ANumberThatIsNotFiniteEndsAllAndTouchesNoCheckpoint) {
  const Workplace& place = workplace();
  ProcessGroup group(
      kWorld, place.train_command("infinite", settings({"schedule.peak=1e30", "schedule.warmup=1",
                                                        "checkpoint.every=1"})));
  EXPECT_EQ(group.wait(), std::vector<int>(kWorld, 80)) << group.errors();
  const int64_t saved = checkpoint_steps(place.run("infinite")).back();
  for (int rank = 0; rank < kWorld; ++rank) {
    EXPECT_THAT(group[rank].errors(),
                HasSubstr(fmt::format("ERROR 80: step {}: loss ", saved + 1)));
    EXPECT_THAT(group[rank].errors(),
                HasSubstr("no update was made, the last checkpoint is untouched"));
  }
  EXPECT_EQ(static_cast<int64_t>(metric_rows(place.run("infinite"), "step").size()), saved);
}

/// Faults 12, 17 and 18: what a later start finds.
TEST(StopTogether, ADamagedFileOfOneProcessTakesAllBackToTheSameOlderStep) {
  const Workplace& place = workplace();
  const Words more = settings({"training.steps=12", "checkpoint.every=4", "evaluation.every=0"});
  const fs::path run = place.run("damaged");
  train_together(place, kWorld, "damaged", more);
  const auto losses = losses_of(run);
  const auto tensors = tensors_of(run);
  const auto damage = [&](int64_t step) {
    const fs::path file = checkpoint_path(run, step) / "model-00002-of-00003.safetensors";
    std::string bytes = read_text(file);
    bytes.back() ^= 1;
    write_text(file, bytes);
  };
  damage(12);
  {
    ProcessGroup group(kWorld, place.train_command("damaged", more));
    EXPECT_EQ(group.wait(), std::vector<int>(kWorld, 0)) << group.errors();
    EXPECT_THAT(
        group.errors(),
        AllOf(HasSubstr("model-00002-of-00003.safetensors"), HasSubstr("using step-00000008"),
              HasSubstr("continuing from " + checkpoint_path(run, 8).string())));
  }
  EXPECT_EQ(losses_of(run), losses);
  EXPECT_TRUE(tensors_of(run) == tensors);
  // Two processes take up what three have left (6 shards divide among both), four cannot.
  damage(12);
  ProcessGroup two(2, place.train_command("damaged", more));
  EXPECT_EQ(two.wait(), std::vector<int>(2, 0)) << two.errors();
  EXPECT_THAT(
      two[0].errors(),
      HasSubstr("made by 3 processes, now there are 2: the same tokens go on, and the same sums"));
  EXPECT_EQ(losses_of(run), losses);
  ProcessGroup four(4, place.train_command("damaged", more));
  EXPECT_EQ(four.wait(), std::vector<int>(4, 78)) << four.errors();
  EXPECT_THAT(four[3].errors(), HasSubstr("use 1, 2, 3 or 6"));
}

}  // namespace
}  // namespace polysketch::test
