// SPDX-License-Identifier: Apache-2.0
// `launch` around commands of the program itself, as a user types it. What needs no launcher of
// several ranks is in tests/launch.
#include <gmock/gmock.h>

#include <fstream>

#include "acceptance/workplace.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::vector<std::string> sorted_lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  std::sort(all.begin(), all.end());
  return all;
}

Words launch(Words options, const Words& command) {
  options.insert(options.begin(), "launch");
  options.emplace_back("--");
  options.insert(options.end(), command.begin(), command.end());
  return options;
}

TEST(Launch, RunsACommandAsSeveralProcesses) {
  const ProcessResult result = polysketch(launch(
      {"--nproc", "2"}, {"config", "check", workplace().config().string(), "--set", "run.seed=3"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string valid = workplace().config().string() + ": valid";
  EXPECT_THAT(sorted_lines(result.out), testing::ElementsAre(testing::StartsWith("[0] " + valid),
                                                             testing::StartsWith("[1] " + valid)));
  EXPECT_THAT(polysketch(launch({"--nproc", "2"}, {"--version"})).out,
              AllOf(HasSubstr("[0] polysketch "), HasSubstr("[1] polysketch ")));
}

TEST(Launch, ReturnsTheCodeOfTheCommand) {
  const ProcessResult result = polysketch(
      launch({"--nproc", "2", "--max-restarts", "2"}, {"config", "check", "nothing.yaml"}));
  EXPECT_EQ(result.exit_code, 66);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("[0] ERROR 66: nothing.yaml"), HasSubstr("\nERROR 66: rank "),
                    HasSubstr("a restart does not mend")));
}

TEST(Launch, RefusesAWrongCommandLine) {
  for (const Words& wrong :
       std::vector<Words>{{"launch"},
                          {"launch", "--nproc", "2"},
                          {"launch", "--nproc", "0", "--", "--version"},
                          {"launch", "--nproc", "x", "--", "--version"},
                          {"launch", "--", "launch", "--", "--version"},
                          {"launch", "--restart-on", "never", "--", "--version"},
                          {"launch", "--grace", "soon", "--", "--version"},
                          {"launch", "--nnodes", "2", "--", "--version"},
                          {"launch", "--json", "--", "--version"}}) {
    const ProcessResult result = polysketch(wrong);
    EXPECT_EQ(result.exit_code, 64) << testing::PrintToString(wrong);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, testing::StartsWith("ERROR 64: "));
  }
}

TEST(Launch, SaysWhereAProcessStands) {
  EXPECT_EQ(polysketch({"launch", "--where"}).out, "alone: no launcher's variables are set\n");
  const Words variables{"RANK=1", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=29500"};
  EXPECT_EQ(polysketch({"launch", "--where"}, variables).out,
            "rank 1 of 2 (1 of 2 on this machine), meeting at 127.0.0.1:29500, by torchrun's "
            "variables\n");
  const Row row = Row::parse(polysketch({"launch", "--where", "--json"}, variables).out);
  EXPECT_EQ(row.at("rank"), 1);
  EXPECT_EQ(row.at("world"), 2);
  EXPECT_EQ(row.at("port"), 29500);
  EXPECT_EQ(row.at("source"), "torchrun");
  const ProcessResult wrong = polysketch({"launch", "--where"}, {"RANK=2", "WORLD_SIZE=2"});
  EXPECT_EQ(wrong.exit_code, 78);
  EXPECT_THAT(wrong.err, HasSubstr("ERROR 78: RANK=2: want"));
}

TEST(Launch, UnderSlurmEachTaskKnowsItsPlace) {
  const ProcessResult result = run_process({(source_folder() / "tests/launch/fake_srun").string(),
                                            program().string(), "launch", "--where"},
                                           {"FAKE_SRUN_TASKS=2,1"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto line = [](int rank, const char* local) {
    return fmt::format(
        "rank {} of 3 ({} on this machine), meeting at localhost:19242, by Slurm's variables", rank,
        local);
  };
  EXPECT_THAT(sorted_lines(result.out),
              testing::ElementsAre(line(0, "0 of 2"), line(1, "1 of 2"), line(2, "0 of 1")));
}

/// Processes that another one has started.
std::vector<pid_t> children_of(pid_t process) {
  std::vector<pid_t> all;
  std::ifstream file(fmt::format("/proc/{0}/task/{0}/children", process));
  for (pid_t child = 0; file >> child;) all.push_back(child);
  return all;
}

TEST(Launch, ARunThatLosesItsProcessEndsLikeAnUndisturbedOne) {
  const Words settings{"checkpoint.every=4"};
  workplace().train("launched-whole", settings);
  RunningProgram launcher(
      launch({"--max-restarts", "3"}, workplace().train_command("launched", settings)));
  ASSERT_TRUE(launcher.wait_for([&] {
    return checkpoint_steps(workplace().run("launched")).size() >= 2;
  })) << launcher.errors();
  const auto ranks = children_of(launcher.process());
  ASSERT_EQ(ranks.size(), 1u);
  kill(ranks[0], SIGKILL);
  EXPECT_EQ(launcher.wait(), 0) << launcher.errors();
  EXPECT_THAT(launcher.errors(),
              AllOf(HasSubstr("was killed by signal 9 (Killed)"), HasSubstr("restart 1 of 3")));
  for (const char* name : {"model.safetensors", "optimizer.safetensors"}) {
    EXPECT_TRUE(read_text(checkpoint_path(workplace().run("launched"), 20) / name) ==
                read_text(checkpoint_path(workplace().run("launched-whole"), 20) / name))
        << name << " differs";
  }
}

TEST(Launch, AStoppedRunSavesAndSaysSo) {
  const Words command = launch({"--max-restarts", "3"}, workplace().train_command("launched-stop"));
  RunningProgram launcher(command);
  ASSERT_TRUE(launcher.wait_for([&] {
    return !metric_rows(workplace().run("launched-stop"), "step").empty();
  })) << launcher.errors();
  launcher.signal(SIGUSR1);
  EXPECT_EQ(launcher.wait(), 75) << launcher.errors();
  EXPECT_THAT(launcher.errors(), HasSubstr("SIGUSR1 passed on to the ranks"));
  EXPECT_FALSE(checkpoint_steps(workplace().run("launched-stop")).empty());
  EXPECT_EQ(polysketch(command).exit_code, 0);
  EXPECT_EQ(checkpoint_steps(workplace().run("launched-stop")).back(), 20);
}

}  // namespace
}  // namespace polysketch::test
