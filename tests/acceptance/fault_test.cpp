// SPDX-License-Identifier: Apache-2.0
// What happens when a machine or the network fails: three processes, each in a network namespace
// with an address of its own. Numbers are those of the table "Faults" in docs/distributed.md.
// scripts/check_faults runs each fault several times and prints the figures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <regex>

#include "network.hpp"
#include "process_group.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using testing::HasSubstr;

constexpr int kWorld = 3, kPort = 29500, kSteps = 100, kSavedStep = 25;
constexpr int kStepTimeout = 3, kTimeout = 15;
constexpr double kGrace = 5;  // seconds after a limit within which a process must have ended
// On top of that: other tests share the processors with these, and then hold up what is measured.
// scripts/check_faults, alone on a machine, prints how long it took.
constexpr double kLoadedMachine = 10;

/// How often each victim suffers.
int runs() {
  const char* text = std::getenv("POLYSKETCH_FAULT_RUNS");
  return text == nullptr ? 1 : std::max(1, std::atoi(text));
}

Words settings() {
  return {fmt::format("training.steps={}", kSteps),
          "training.batch_tokens=768",
          fmt::format("checkpoint.every={}", kSavedStep),
          "evaluation.every=0",
          fmt::format("distributed.timeout={}", kTimeout),
          fmt::format("distributed.step_timeout={}", kStepTimeout),
          "distributed.reduce=canonical",
          "distributed.shards=6",
          "logging.tensorboard=false"};
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A process on each machine of a network.
class Machines {
 public:
  explicit Machines(const Words& command, const std::function<Words(int rank)>& more = {}) {
    for (int rank = 0; rank < kWorld; ++rank) command_[rank] = with(command, rank, more);
  }
  void start() {
    for (int rank = 0; rank < kWorld; ++rank) {
      Words variables = rank_environment(rank, kWorld, kPort, Network::address(0));
      variables[2] = "LOCAL_RANK=0";
      variables[3] = "LOCAL_WORLD_SIZE=1";
      programs_.push_back(std::make_unique<RunningProgram>(command_[rank], variables, [&, rank] {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        network_.enter(rank);
      }));
    }
  }
  const Network& network() const { return network_; }
  RunningProgram& operator[](int rank) { return *programs_.at(static_cast<size_t>(rank)); }
  /// Seconds from `start` until the last of `who` has ended by itself. Whoever still runs after
  /// `patience` seconds has failed, and is killed.
  double until_ended(const std::vector<int>& who, Clock::time_point start, double patience) {
    for (;;) {
      std::vector<int> open;
      for (const int rank : who) {
        if (!(*this)[rank].ended()) open.push_back(rank);
      }
      const double now = seconds_since(start);
      if (open.empty()) return now;
      if (now > patience) {
        ADD_FAILURE() << "after " << now << " s these still run: " << testing::PrintToString(open)
                      << "\n"
                      << errors();
        for (const int rank : open) (*this)[rank].signal(SIGKILL);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  std::vector<int> codes() {
    std::vector<int> all;
    for (auto& program : programs_) all.push_back(program->wait());
    return all;
  }
  std::string errors() const {
    std::string text;
    for (size_t i = 0; i < programs_.size(); ++i)
      text += fmt::format("rank {}:\n{}\n", i, programs_[i]->errors());
    return text;
  }

 private:
  static Words with(Words command, int rank, const std::function<Words(int rank)>& more) {
    Words set = more ? more(rank) : Words{};
    set.push_back("distributed.address=" + Network::address(rank));
    for (const std::string& setting : set) {
      command.push_back("--set");
      command.push_back(setting);
    }
    return command;
  }
  Network network_{kWorld};
  Words command_[kWorld];
  std::vector<std::unique_ptr<RunningProgram>> programs_;
};

const std::vector<int> kAll{0, 1, 2};

/// The run that nothing happened to, by one process: in canonical order the number of processes
/// makes no difference.
const fs::path& undisturbed() {
  static const fs::path run = [] {
    train_together(workplace(), 1, "undisturbed", settings());
    return workplace().run("undisturbed");
  }();
  return run;
}

void expect_to_go_on_like_the_undisturbed(const std::string& name) {
  Machines machines(workplace().train_command(name, settings()));
  machines.start();
  machines.until_ended(kAll, Clock::now(), 120);
  EXPECT_EQ(machines.codes(), std::vector<int>(kWorld, 0)) << machines.errors();
  EXPECT_TRUE(tensors_of(workplace().run(name)) == tensors_of(undisturbed()));
  EXPECT_EQ(losses_of(workplace().run(name)), losses_of(undisturbed()));
}

/// A line that scripts/check_faults makes its table of.
void report(const std::string& fault, int victim, double seconds, const std::vector<int>& codes) {
  std::printf("fault: %s: rank %d: %.2f s: %s\n", fault.c_str(), victim, seconds,
              fmt::format("{}", fmt::join(codes, " ")).c_str());
  std::fflush(stdout);
}

/// The one line of a process that says why it ended.
std::string error_line(RunningProgram& program) {
  std::string found;
  std::istringstream lines(program.errors());
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("ERROR ")) continue;
    EXPECT_EQ(found, "") << "a second line: " << line;
    found = line;
  }
  return found;
}

/// A survivor says in which step and exchange it noticed and who is to blame: one of `peers`.
void expect_blame(RunningProgram& program, int rank, int64_t after_step,
                  const std::vector<int>& peers) {
  const std::string line = error_line(program);
  std::smatch found;
  ASSERT_TRUE(
      std::regex_match(
          line, found,
          std::regex(
              R"(ERROR 76: step (\d+): (.*'.+'.*) failed on rank (\d) of 3 \((.*)\): (.*))")) ||
      std::regex_match(
          line, found,
          std::regex(
              R"(ERROR 76: step (\d+): (an exchange) failed on rank (\d) of 3 \((.*'.+'.*)\): (.*))")))
      << line;
  EXPECT_GE(std::stoll(found[1]), after_step) << line;
  EXPECT_LE(std::stoll(found[1]), kSteps) << line;
  EXPECT_EQ(found[3], std::to_string(rank)) << line;
  const std::string blame = found[5];
  EXPECT_TRUE(std::any_of(peers.begin(), peers.end(), [&](int peer) {
    return blame.find(fmt::format("rank {} (", peer)) != std::string::npos;
  })) << line;
}

struct Fault {
  std::string name;
  std::function<void(Machines&, int victim)> strike;
  bool victim_survives = false;  ///< it is alive and has to end by itself, too
};

class WhileTraining : public testing::TestWithParam<Fault> {};
INSTANTIATE_TEST_SUITE_P(
    Faults, WhileTraining,
    testing::Values(
        Fault{"killed", [](Machines& machines, int victim) { machines[victim].signal(SIGKILL); }},
        Fault{"stopped", [](Machines& machines, int victim) { machines[victim].signal(SIGSTOP); }},
        Fault{"link_down",
              [](Machines& machines, int victim) { machines.network().take_link_down(victim); },
              true},
        Fault{"blackhole",
              [](Machines& machines, int victim) { machines.network().blackhole(victim); }, true}),
    [](const auto& one) { return one.param.name; });

/// Faults 40 and 41.
TEST_P(WhileTraining, EndsAllInTimeAndTheRunGoesOn) {
  if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
  const Fault& fault = GetParam();
  for (int round = 0; round < 2 * runs(); ++round) {
    const int victim = round % 2 == 0 ? 0 : 1 + round / 2 % 2;
    const std::string name = fmt::format("{}-{}-{}", fault.name, victim, round);
    SCOPED_TRACE(name);
    const fs::path run = workplace().run(name);
    std::vector<int> survivors;
    for (const int rank : kAll) {
      if (rank != victim || fault.victim_survives) survivors.push_back(rank);
    }
    {
      Machines machines(workplace().train_command(name, settings()));
      machines.start();
      // Just after a save, so that none is under way: then the longer limit counts.
      ASSERT_TRUE(machines[0].wait_for([&] {
        return metric_rows(run, "step").size() > kSavedStep;
      })) << machines.errors();
      const auto steps = static_cast<int64_t>(metric_rows(run, "step").size());
      const auto start = Clock::now();
      fault.strike(machines, victim);
      const double seconds = machines.until_ended(survivors, start, kStepTimeout + kGrace + 30);
      EXPECT_LT(seconds, kStepTimeout + kGrace + kLoadedMachine);
      for (const int rank : survivors) {
        EXPECT_EQ(machines[rank].wait(), 76) << machines[rank].errors();
        expect_blame(
            machines[rank], rank, steps,
            rank == victim ? std::vector<int>{rank == 0 ? 1 : 0, 2} : std::vector<int>{victim});
        EXPECT_THAT(read_text(run / fmt::format("collectives-rank{}.txt", rank)),
                    HasSubstr("the last 64 exchanges"));
      }
      if (fault.name == "stopped") {  // let go on, it finds itself alone
        machines[victim].signal(SIGCONT);
        machines.until_ended({victim}, Clock::now(), kStepTimeout + kGrace);
        EXPECT_EQ(machines[victim].wait(), 76) << machines[victim].errors();
      }
      report(fault.name, victim, seconds, machines.codes());
      EXPECT_EQ(machines.network().processes(), std::vector<pid_t>{});
    }
    EXPECT_EQ(checkpoint_steps(run), std::vector<int64_t>{kSavedStep});
    if (round == 2 * runs() - 1) expect_to_go_on_like_the_undisturbed(name);
  }
}

/// Fault 43: somebody else listens where the processes are to meet, and never answers.
TEST(Faults, APortThatIsTakenEndsAllAndTheSameCommandRunsLater) {
  if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
  for (int round = 0; round < runs(); ++round) {
    const std::string name = fmt::format("port-{}", round);
    Words short_wait = settings();
    short_wait.push_back("distributed.timeout=4");
    Machines machines(workplace().train_command(name, short_wait));
    const int fd = machines.network().occupy(0, kPort);
    const auto start = Clock::now();
    machines.start();
    const double seconds = machines.until_ended(kAll, start, 60);
    ::close(fd);
    // Counted from the start of the processes, which itself takes a while on a busy machine.
    EXPECT_LT(seconds, 4 + kGrace + 10);
    EXPECT_EQ(machines.codes(), std::vector<int>(kWorld, 76)) << machines.errors();
    EXPECT_THAT(error_line(machines[0]), HasSubstr("10.77.0.1:29500: cannot listen: Address "
                                                   "already in use: another process has the port"));
    for (const int rank : {1, 2}) {
      EXPECT_THAT(
          error_line(machines[rank]),
          HasSubstr(fmt::format(
              "10.77.0.1:29500: rank {} cannot reach the place where the 3 processes meet", rank)));
    }
    EXPECT_EQ(machines.network().processes(), std::vector<pid_t>{});
    report("port taken", 0, seconds, machines.codes());
    if (round == runs() - 1) expect_to_go_on_like_the_undisturbed(name);
  }
}

/// Fault 44.
TEST(Faults, AnotherConfigurationOnOneMachineIsNamedByAll) {
  if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
  for (int round = 0; round < 2 * runs(); ++round) {
    const int victim = round % 2 == 0 ? 0 : 1 + round / 2 % 2;
    const std::string name = fmt::format("configuration-{}", round);
    Machines machines(workplace().train_command(name, settings()), [&](int rank) {
      return rank == victim ? Words{"schedule.peak=0.5"} : Words{};
    });
    const auto start = Clock::now();
    machines.start();
    const double seconds = machines.until_ended(kAll, start, kTimeout + kGrace + 30);
    EXPECT_LT(seconds, kTimeout + kGrace + kLoadedMachine);
    EXPECT_EQ(machines.codes(), std::vector<int>(kWorld, 78)) << machines.errors();
    for (const int rank : kAll)
      EXPECT_THAT(error_line(machines[rank]),
                  HasSubstr(fmt::format("schedule.peak of rank {} (", victim)));
    EXPECT_EQ(machines.network().processes(), std::vector<pid_t>{});
    EXPECT_EQ(metric_rows(workplace().run(name)).size(), 0u);
    report("other configuration", victim, seconds, machines.codes());
    if (round == 2 * runs() - 1) expect_to_go_on_like_the_undisturbed(name);
  }
}

/// Fault 42: 1 Mbit/s to one machine.
TEST(Faults, ASlowLinkChangesNoNumberAndItsMachineIsNamed) {
  if (const std::string reason = Network::why_not(); !reason.empty()) GTEST_SKIP() << reason;
  for (const std::string reduce : {"canonical", "fast"}) {
    Words words{
        "training.steps=3",     "training.batch_tokens=768", "checkpoint.every=0",
        "evaluation.every=0",   "schedule.warmup=1",         "model.layers=1",
        "model.width=16",       "distributed.timeout=60",    "distributed.step_timeout=30",
        "distributed.shards=3", "logging.tensorboard=false", "distributed.reduce=" + reduce};
    double times[2];
    for (const bool slow : {false, true}) {
      const std::string name = fmt::format("{}-link-{}", slow ? "slow" : "good", reduce);
      Machines machines(workplace().train_command(name, words));
      if (slow) machines.network().slow_down(2, "1mbit");
      machines.start();
      machines.until_ended(kAll, Clock::now(), 120);
      EXPECT_EQ(machines.codes(), std::vector<int>(kWorld, 0)) << machines.errors();
      times[slow ? 1 : 0] = 0;
      for (const Row& row : metric_rows(workplace().run(name), "step"))
        times[slow ? 1 : 0] += row.at("seconds_per_step").get<double>();
      EXPECT_EQ(machines[0].errors().find("straggler") != std::string::npos, slow)
          << machines[0].errors();
      if (slow) {
        EXPECT_THAT(machines[0].errors(),
                    testing::ContainsRegex(
                        "straggler: rank 2 \\(.*is connected slowly: [0-9.]+ Mbit/s where"));
      }
    }
    report("slow link, " + reduce, 2, times[1] / 3, {0, 0, 0});
    EXPECT_GT(times[1], times[0]);
    EXPECT_EQ(losses_of(workplace().run("slow-link-" + reduce)),
              losses_of(workplace().run("good-link-" + reduce)));
  }
}

}  // namespace
}  // namespace polysketch::test
