// SPDX-License-Identifier: Apache-2.0
// Whatever asks for an end makes a run save; commands that have nothing to save leave nothing.
#include <gmock/gmock.h>

#include <fstream>

#include "acceptance/workplace.hpp"
#include "support/stop_signal.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Long, and saved by nothing but a stop.
Words endless(const std::string& name) {
  return workplace().train_command(name, {"training.steps=1M", "checkpoint.every=0",
                                          "evaluation.every=0", "logging.every=1000"});
}

size_t steps_of(const std::string& name) {
  return metric_rows(workplace().run(name), "step").size();
}

void expect_saved(const std::string& name) {
  const auto rows = metric_rows(workplace().run(name));
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(rows.back().at("event"), "stop");
  ASSERT_FALSE(checkpoint_steps(workplace().run(name)).empty());
  EXPECT_EQ(checkpoint_steps(workplace().run(name)).back(), rows.back().at("step"));
}

TEST(Signals, EveryOneThatAsksMakesARunSave) {
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU,
                           SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT, SIGRTMIN, SIGRTMAX}) {
    SCOPED_TRACE(signal_name(number));
    const std::string name = "by-" + signal_name(number);
    RunningProgram program(endless(name));
    ASSERT_TRUE(program.wait_for([&] { return steps_of(name) >= 2; })) << program.errors();
    program.signal(number);
    EXPECT_EQ(program.wait(), 75) << program.errors();
    expect_saved(name);
    fs::remove_all(workplace().run(name));
  }
}

/// The shell, the kernel and the manager of sessions all have their say when a terminal goes away.
TEST(Signals, ATerminalThatGoesAwayMakesAllSave) {
  for (const bool launched : {false, true}) {
    const std::string name = launched ? "hung-up-launch" : "hung-up";
    Words words = endless(name);
    if (launched) words.insert(words.begin(), {"launch", "--nproc", "2", "--"});
    RunningProgram program(words, {}, [] { setsid(); });
    ASSERT_TRUE(program.wait_for([&] { return steps_of(name) >= 2; })) << program.errors();
    std::vector<pid_t> all{program.process()};
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", program.process()));
    for (pid_t child = 0; children >> child;) all.push_back(child);
    EXPECT_EQ(all.size(), launched ? 3u : 1u);
    for (int round = 0; round < 2; ++round) {
      for (const pid_t process : all) kill(process, SIGHUP);
    }
    program.signal(SIGTERM);
    EXPECT_EQ(program.wait(), 75) << program.errors();
    expect_saved(name);
  }
}

TEST(Signals, OneThatWasIgnoredIsIgnored) {
  const std::string name = "under-nohup";
  RunningProgram program(endless(name), {}, [] { signal(SIGHUP, SIG_IGN); });
  ASSERT_TRUE(program.wait_for([&] { return steps_of(name) >= 2; })) << program.errors();
  program.signal(SIGHUP);
  const size_t before = steps_of(name);
  ASSERT_TRUE(program.wait_for([&] { return steps_of(name) >= before + 5; })) << program.errors();
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 75) << program.errors();
}

TEST(Signals, OtherCommandsEndAndLeaveNothingBehind) {
  TemporaryFolder folder;
  workplace().train("to-evaluate");
  const std::string run = workplace().run("to-evaluate").string(),
                    config = workplace().config().string(), svg = (folder / "plot.svg").string();
  struct Case {
    Words words;
    int code;  // of the program; 0: the signal itself
    std::string says;
  };
  for (const Case& one :
       {Case{{"generate", run, "--tokens", "1G", "--keep-going"}, 75, "stopped by SIGUSR2"},
        Case{{"bench", "step", config, "--steps", "100k"}, 0, ""},
        Case{{"bench", "crossover", "--lengths", "1Ki", "--kinds", "softmax", "--rounds", "10k",
              "--svg", svg},
             0,
             ""},
        Case{{"bench", "scaling", config, "--steps", "10k", "--processes", "2"}, 0, ""}}) {
    SCOPED_TRACE(one.words[0] + " " + one.words[1]);
    RunningProgram program(one.words);
    // As soon as it has said which signals it takes itself.
    ASSERT_TRUE(program.wait_for([&] {
      std::ifstream status(fmt::format("/proc/{}/status", program.process()));
      for (std::string line; std::getline(status, line);) {
        if (line.starts_with("SigCgt:"))
          return (std::stoull(line.substr(7), nullptr, 16) >> (SIGUSR2 - 1) & 1) != 0;
      }
      return false;
    })) << program.errors();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::vector<pid_t> started;
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", program.process()));
    for (pid_t child = 0; children >> child;) started.push_back(child);
    program.signal(SIGUSR2);
    EXPECT_EQ(program.wait(), one.code == 0 ? 128 + SIGUSR2 : one.code) << program.errors();
    EXPECT_THAT(program.errors(), HasSubstr(one.says));
    for (const pid_t child : started) {
      const auto gone = [&] {
        std::ifstream status(fmt::format("/proc/{}/stat", child));
        std::string text;
        return !std::getline(status, text) || text.find(") Z ") != std::string::npos;
      };
      for (int i = 0; i < 2000 && !gone(); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      EXPECT_TRUE(gone()) << "process " << child << " goes on";
    }
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace polysketch::test
