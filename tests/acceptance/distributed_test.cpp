// SPDX-License-Identifier: Apache-2.0
// Several processes, one run: what a user with a cluster relies on, with real processes on real
// sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <set>
#include <thread>

#include "helpers/tolerances.hpp"
#include "process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// 12 sequences a step: divides among 1, 2, 3, 4, 6 and 12.
Words settings(const Words& more = {}) {
  Words all{"training.batch_tokens=768",   "checkpoint.every=0",
            "evaluation.every=0",          "distributed.timeout=60",
            "distributed.step_timeout=20", "logging.tensorboard=false"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<std::string> digests_of(const fs::path& run) {
  std::vector<std::string> digests;
  for (const Row& row : metric_rows(run, "step"))
    digests.push_back(row.at("token_digest").get<std::string>());
  return digests;
}

TEST(Distributed, AnyNumberOfProcessesReadsTheSameTokensAndLearnsTheSame) {
  const Workplace& place = workplace();
  const Words more = settings({"training.steps=200", "schedule.peak=2e-3"});
  for (const int world : {1, 2, 3})
    train_together(place, world, fmt::format("same-{}", world), more);
  const auto losses = losses_of(place.run("same-1"));
  ASSERT_EQ(losses.size(), 200u);
  for (const int world : {2, 3}) {
    const fs::path run = place.run(fmt::format("same-{}", world));
    EXPECT_EQ(digests_of(run), digests_of(place.run("same-1")));
    const auto others = losses_of(run);
    ASSERT_EQ(others.size(), losses.size());
    double worst = 0;
    for (size_t i = 0; i < losses.size(); ++i)
      worst = std::max(worst, std::abs(others[i] / losses[i] - 1));
    RecordProperty(fmt::format("worst_{}", world), std::to_string(worst));
    EXPECT_LT(worst, tolerance::kLossAcrossWorlds) << world;
  }
}

/// Canonical reduction: equal bit for bit, losses, masters and moments.
class Canonical : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Precisions, Canonical, testing::Values("fp32", "bf16"));

TEST_P(Canonical, IsEqualBitForBitOnEveryNumberThatDividesTheShards) {
  const Workplace& place = workplace();
  const Words more =
      settings({"training.steps=12", "distributed.reduce=canonical", "distributed.shards=6",
                "model.dropout=0.1", "training.precision=" + GetParam()});
  const auto name = [&](int world) { return fmt::format("canonical-{}-{}", GetParam(), world); };
  for (const int world : {1, 2, 3}) train_together(place, world, name(world), more);
  const auto tensors = tensors_of(place.run(name(1)));
  EXPECT_GT(tensors.size(), 30u);
  for (const int world : {2, 3}) {
    EXPECT_EQ(losses_of(place.run(name(world))), losses_of(place.run(name(1)))) << world;
    EXPECT_TRUE(tensors_of(place.run(name(world))) == tensors) << world;
  }
}

/// A sharded optimiser computes what an unsharded one does, bit for bit.
class Sharded : public testing::TestWithParam<std::tuple<int, std::string>> {};
INSTANTIATE_TEST_SUITE_P(Ways, Sharded,
                         testing::Combine(testing::Values(2, 3), testing::Values("fp32", "bf16")));

TEST_P(Sharded, LearnsTheSameBitForBitAndIsSavedWhole) {
  const auto [world, precision] = GetParam();
  const Workplace& place = workplace();
  const auto name = [&, w = world, p = precision](const std::string& what) {
    return fmt::format("zero-{}-{}-{}", what, w, p);
  };
  const Words more = settings(
      {"training.steps=10", "training.precision=" + precision, "distributed.bucket_bytes=200000"});
  train_together(place, world, name("whole"), more);
  Words sharded = more;
  sharded.push_back("distributed.shard_optimizer=true");
  train_together(place, world, name("sharded"), sharded);
  EXPECT_EQ(losses_of(place.run(name("sharded"))), losses_of(place.run(name("whole"))));
  EXPECT_TRUE(tensors_of(place.run(name("sharded"))) == tensors_of(place.run(name("whole"))));
}

TEST(Distributed, ARunGoesOnWithAnotherNumberOfProcesses) {
  const Workplace& place = workplace();
  const Words canonical{"distributed.reduce=canonical", "distributed.shards=6",
                        "training.precision=bf16"};
  Words more = settings({"training.steps=18", "schedule.warmup=2"});
  more.insert(more.end(), canonical.begin(), canonical.end());
  train_together(place, 1, "going-on-whole", more);
  // The same run in parts: stopped after each, and taken up by another number of processes, sharded
  // or not.
  int64_t reached = 0;
  for (const auto& [world, sharded] :
       std::vector<std::pair<int, bool>>{{3, true}, {2, false}, {1, false}, {2, true}}) {
    Words words = more;
    if (sharded) words.push_back("distributed.shard_optimizer=true");
    ProcessGroup group(world, place.train_command("going-on", words));
    const int64_t wanted = reached + 3;
    const bool last = world == 2 && sharded;
    if (!last) {
      ASSERT_TRUE(group[0].wait_for([&] {
        return static_cast<int64_t>(metric_rows(place.run("going-on"), "step").size()) >= wanted;
      })) << group.errors();
      group[world - 1].signal(SIGTERM);
    }
    EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(world), last ? 0 : 75))
        << group.errors();
    const int64_t now = static_cast<int64_t>(metric_rows(place.run("going-on"), "step").size());
    if (reached > 0) {
      EXPECT_THAT(group[0].errors(), HasSubstr("continuing from"));
    }
    reached = now;
  }
  EXPECT_EQ(losses_of(place.run("going-on")), losses_of(place.run("going-on-whole")));
  EXPECT_EQ(digests_of(place.run("going-on")), digests_of(place.run("going-on-whole")));
  EXPECT_TRUE(tensors_of(place.run("going-on")) == tensors_of(place.run("going-on-whole")));
}

TEST(Distributed, ASignalToOneProcessStopsAllAtTheSameStep) {
  const Workplace& place = workplace();
  for (const int who : {0, 2}) {
    const std::string name = fmt::format("one-signal-{}", who);
    ProcessGroup group(3, place.train_command(name, settings({"training.steps=100000"})));
    ASSERT_TRUE(group[0].wait_for([&] { return metric_rows(place.run(name), "step").size() >= 3; }))
        << group.errors();
    group[who].signal(SIGUSR1);
    EXPECT_EQ(group.wait(), (std::vector<int>{75, 75, 75})) << group.errors();
    const auto steps = metric_rows(place.run(name), "step");
    EXPECT_EQ(checkpoint_steps(place.run(name)),
              std::vector<int64_t>{static_cast<int64_t>(steps.size())});
  }
}

TEST(Distributed, PerplexityIsTheSameFigureWhileTrainingAndAfterwards) {
  const Workplace& place = workplace();
  const Words more = settings({"training.steps=4", "evaluation.every=4", "evaluation.tokens=all",
                               "distributed.reduce=canonical", "distributed.shards=6"});
  std::set<std::string> while_training, afterwards;
  for (const int world : {1, 2, 3}) {
    const std::string name = fmt::format("perplexity-{}", world);
    train_together(place, world, name, more);
    const auto rows = metric_rows(place.run(name), "validation");
    ASSERT_EQ(rows.size(), 1u);
    while_training.insert(fmt::format("{:.10f} {}", rows[0].at("perplexity").get<double>(),
                                      rows[0].at("tokens_scored").get<int64_t>()));
    const Words command{"evaluate", "perplexity", place.run("perplexity-1").string(),
                        "--split",  "test",       "--json"};
    if (world == 1) {
      const auto result = polysketch(command);
      ASSERT_EQ(result.exit_code, 0) << result.err;
      const Row row = Row::parse(result.out);
      afterwards.insert(fmt::format("{:.10f} {}", row.at("perplexity").get<double>(),
                                    row.at("tokens_scored").get<int64_t>()));
      continue;
    }
    const int port = free_port();
    std::vector<std::unique_ptr<RunningProgram>> others;
    for (int rank = 1; rank < world; ++rank)
      others.push_back(
          std::make_unique<RunningProgram>(command, rank_environment(rank, world, port)));
    const auto result = polysketch(command, rank_environment(0, world, port));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    for (auto& other : others) EXPECT_EQ(other->wait(), 0) << other->errors();
    const Row row = Row::parse(result.out);
    afterwards.insert(fmt::format("{:.10f} {}", row.at("perplexity").get<double>(),
                                  row.at("tokens_scored").get<int64_t>()));
  }
  EXPECT_EQ(while_training.size(), 1u) << testing::PrintToString(while_training);
  EXPECT_EQ(afterwards.size(), 1u) << testing::PrintToString(afterwards);
}

// A minute is the shortest that the key knows.
TEST(Distributed, ACheckpointIsMadeWhenTheClockSaysSo) {
  const Workplace& place = workplace();
  RunningProgram program(
      place.train_command("clock", settings({"training.steps=10000000", "checkpoint.minutes=1"})));
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  while (!program.ended() && checkpoint_steps(place.run("clock")).empty() && seconds() < 120)
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_GE(seconds(), 59);
  EXPECT_EQ(checkpoint_steps(place.run("clock")).size(), 1u) << program.errors();
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 75);
}

TEST(Distributed, EachProcessStaysOnItsShareOfTheProcessors) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two processors";
  const Workplace& place = workplace();
  ProcessGroup group(2, place.train_command("bound", settings({"training.steps=100000",
                                                               "distributed.bind_cpus=true"})));
  ASSERT_TRUE(group[0].wait_for([&] {
    return metric_rows(place.run("bound"), "step").size() >= 2;
  })) << group.errors();
  std::vector<std::string> allowed;
  for (const int rank : {0, 1}) {
    const std::string status = read_text(fmt::format("/proc/{}/status", group[rank].process()));
    const size_t at = status.find("Cpus_allowed_list:");
    allowed.push_back(status.substr(at, status.find('\n', at) - at));
  }
  EXPECT_NE(allowed[0], allowed[1]);
  group[0].signal(SIGTERM);
  EXPECT_EQ(group.wait(), (std::vector<int>{75, 75}));
}

TEST(Distributed, ANumberOfProcessesThatDoesNotFitIsRefusedWithThoseThatDo) {
  ProcessGroup group(5, workplace().train_command("five", settings()));
  EXPECT_EQ(group.wait(), std::vector<int>(5, 78)) << group.errors();
  EXPECT_THAT(group[4].errors(),
              HasSubstr("do not divide among 5 processes: use 1, 2, 3, 4, 6 or 12 of them"));
}

TEST(Distributed, AProcessWithAnotherConfigurationIsNamedWithTheKey) {
  ProcessGroup group(3, workplace().train_command("other-configuration", settings()),
                     [](int rank) { return rank == 1 ? Words{"schedule.peak=0.5"} : Words{}; });
  EXPECT_EQ(group.wait(), std::vector<int>(3, 78)) << group.errors();
  EXPECT_THAT(group[2].errors(), HasSubstr("schedule.peak of rank 1 ("));
}

TEST(Distributed, AnErrorOfOneProcessEndsAllAndIsTold) {
  const Workplace& place = workplace();
  ProcessGroup group(2, place.train_command("error-of-one", settings()), [](int rank) {
    return rank == 1 ? Words{"data.tokenizer.path=/nowhere/t.model"} : Words{};
  });
  EXPECT_EQ(group.wait(), (std::vector<int>{76, 66})) << group.errors();
  EXPECT_THAT(group[0].errors(), HasSubstr("rank 1 ("));
  EXPECT_THAT(group[0].errors(), HasSubstr("ended with exit code 66"));
}

TEST(Distributed, TheDeathOfAProcessEndsTheOthersAndTheRunGoesOnFromItsCheckpoint) {
  const Workplace& place = workplace();
  const Words more = settings({"training.steps=40", "checkpoint.every=5",
                               "distributed.reduce=canonical", "distributed.shards=6"});
  train_together(place, 1, "undisturbed", more);
  for (const int victim : {0, 1}) {
    const std::string name = fmt::format("death-{}", victim);
    {
      ProcessGroup group(3, place.train_command(name, more));
      ASSERT_TRUE(group[0].wait_for([&] {
        return metric_rows(place.run(name), "step").size() >= 12;
      })) << group.errors();
      group[victim].signal(SIGKILL);
      const auto codes = group.wait();
      for (int rank = 0; rank < 3; ++rank)
        EXPECT_EQ(codes[static_cast<size_t>(rank)], rank == victim ? 137 : 76) << group.errors();
      EXPECT_THAT(group[2].errors(), HasSubstr(fmt::format("rank {} (", victim)));
      EXPECT_THAT(read_text(place.run(name) / "collectives-rank2.txt"),
                  HasSubstr("all-gather 'shards of gradients"));
    }
    train_together(place, 2, name, more);
    EXPECT_TRUE(tensors_of(place.run(name)) == tensors_of(place.run("undisturbed")));
  }
}

TEST(Distributed, TheLauncherRestartsAGroupThatLostAProcess) {
  const Workplace& place = workplace();
  const Words more = settings({"training.steps=40", "checkpoint.every=5",
                               "distributed.reduce=canonical", "distributed.shards=6"});
  train_together(place, 1, "launched-undisturbed", more);
  Words command{"launch", "--nproc", "3", "--max-restarts", "3", "--"};
  for (const auto& word : place.train_command("launched", more)) command.push_back(word);
  RunningProgram launcher(command);
  ASSERT_TRUE(launcher.wait_for([&] {
    return metric_rows(place.run("launched"), "step").size() >= 12;
  })) << launcher.errors();
  // The process of rank 1 is found by its environment, as an operator would.
  pid_t victim = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string number = entry.path().filename().string();
    if (number.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string variables, arguments;
    try {
      variables = read_text(entry.path() / "environ");
      arguments = read_text(entry.path() / "cmdline");
    } catch (const std::exception&) {
      continue;
    }
    using std::string_literals::operator""s;
    if (("\0"s + variables).find("\0RANK=1\0"s) != std::string::npos &&
        arguments.find(place.run("launched").string()) != std::string::npos) {
      victim = static_cast<pid_t>(std::stol(number));
    }
  }
  ASSERT_GT(victim, 0);
  ::kill(victim, SIGKILL);
  EXPECT_EQ(launcher.wait(), 0) << launcher.errors();
  EXPECT_TRUE(tensors_of(place.run("launched")) == tensors_of(place.run("launched-undisturbed")));
}

}  // namespace
}  // namespace polysketch::test
