// SPDX-License-Identifier: Apache-2.0
// How ranks are started, ended and started again.
#include "launch/launcher.hpp"

#include "launch/launched.hpp"
#include "launch/processors.hpp"

namespace polysketch::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::UnorderedElementsAre;

TEST_F(Launcher, GivesEachRankItsVariables) {
  LaunchOptions options =
      sh(2,
         "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $GROUP_RANK "
         "$MASTER_ADDR:$MASTER_PORT $POLYSKETCH_ATTEMPT "
         "$OMP_NUM_THREADS ${POLYSKETCH_STORE-none} ${TORCHELASTIC_USE_AGENT_STORE-none} "
         "${TORCHELASTIC_RESTART_COUNT-none}");
  options.nodes = 3;
  options.node_rank = 1;
  options.host = "node-a";
  options.port = 2345;
  Launched launched(options, [] {
    unsetenv("OMP_NUM_THREADS");
    setenv("RANK", "7", 1);
    setenv("POLYSKETCH_STORE", "file:/else", 1);
    setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
    setenv("TORCHELASTIC_RESTART_COUNT", "3", 1);
  });
  EXPECT_EQ(launched.wait(), 0) << launched.err();
  const int64_t threads = threads_each(usable_processors(), 2);
  EXPECT_THAT(
      launched.out_lines(),
      UnorderedElementsAre(fmt::format("[2] 2/6 0/2 1 node-a:2345 0 {} none none none", threads),
                           fmt::format("[3] 3/6 1/2 1 node-a:2345 0 {} none none none", threads)));
}

TEST_F(Launcher, KeepsThreadsThatAreSet) {
  Launched launched(sh(1, "echo $OMP_NUM_THREADS"), [] { setenv("OMP_NUM_THREADS", "77", 1); });
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_EQ(launched.out(), "[0] 77\n");
}

TEST_F(Launcher, ChoosesAPortForAll) {
  Launched launched(sh(3, "echo $MASTER_ADDR $MASTER_PORT"));
  EXPECT_EQ(launched.wait(), 0);
  auto lines = launched.out_lines();
  for (auto& line : lines) line.erase(0, 4);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0], MatchesRegex("127\\.0\\.0\\.1 [0-9]+"));
  EXPECT_THAT(lines, Each(lines[0]));
}

TEST_F(Launcher, ReturnsTheCodeOfTheRankThatFailed) {
  Launched launched(sh(3,
                       "echo $$ > $D/rank$RANK; [ $RANK = 1 ] || exec sleep 1000; while [ ! -s "
                       "$D/rank0 -o ! -s $D/rank2 ]; do sleep 0.01; done; exit 78"));
  EXPECT_EQ(launched.wait(), 78);
  expect_all_gone("rank", 3);
  const pid_t failed = processes_in(folder_.path(), "rank1").at(0);
  EXPECT_THAT(launched.err_lines().back(),
              MatchesRegex(fmt::format("ERROR 78: rank 1 \\(process {} on [^ ]+\\) ended with code "
                                       "78 \\(wrong configuration\\) after [0-9.]+ s: "
                                       "see the last lines of \\[1\\]",
                                       failed)));
}

TEST_F(Launcher, BlamesNobodyForMissingAnother) {
  // Rank 0 notices that rank 1 is gone before the launcher sees it.
  Launched launched(sh(2,
                       "trap '' TERM; touch $D/ready$RANK\n"
                       "[ $RANK = 0 ] && { while [ ! -e $D/ready1 ]; do sleep 0.01; done; exit 76; "
                       "}\nsleep 0.3; exit 80"));
  EXPECT_EQ(launched.wait(), 80);
  EXPECT_THAT(launched.err(), HasSubstr("ERROR 80: rank 1 "));
}

TEST_F(Launcher, TellsTheSignalThatKilled) {
  Launched launched(sh(2, "[ $RANK = 0 ] || kill -SEGV $$\n" + wait_for_ever));
  EXPECT_EQ(launched.wait(), 128 + SIGSEGV);
  EXPECT_THAT(
      launched.err_lines().back(),
      MatchesRegex("ERROR 139: rank 1 \\(.*was killed by signal 11 \\(Segmentation fault\\).*"));
}

TEST_F(Launcher, KillsWhoIgnoresSigterm) {
  LaunchOptions options = sh(2,
                             "trap '' TERM; [ $RANK = 0 ] && { while [ ! -s $D/ready1 ]; do sleep "
                             "0.01; done; exit 70; }\n" +
                                 wait_for_ever);
  options.grace = 0.2;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 70);
  EXPECT_THAT(launched.err(), HasSubstr("rank 1 has not ended in time: killed"));
  expect_all_gone("ready", 1);
}

TEST_F(Launcher, KillsWhoIsSuspended) {
  LaunchOptions options = sh(2,
                             "[ $RANK = 1 ] && { echo $$ > $D/ready1; kill -STOP $$; }\nwhile [ ! "
                             "-s $D/ready1 ]; do sleep 0.01; done; exit 76");
  options.grace = 0.2;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 76);
  expect_all_gone("ready", 1);
}

const std::string fails_until_attempt_2 =
    "echo attempt $POLYSKETCH_ATTEMPT; [ $RANK = 1 ] && [ $POLYSKETCH_ATTEMPT -lt 2 ] && exit 74; "
    "exit 0";

TEST_F(Launcher, RestartsTheGroup) {
  LaunchOptions options = sh(2, fails_until_attempt_2);
  options.max_restarts = 2;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 0) << launched.err();
  EXPECT_THAT(launched.out_lines(), AllOf(Contains("[1] attempt 0"), Contains("[1] attempt 1"),
                                          Contains("[1] attempt 2"), Contains("[0] attempt 2")));
  EXPECT_THAT(launched.err(),
              AllOf(HasSubstr("restart 1 of 2 in 0.01 s"), HasSubstr("restart 2 of 2 in 0.02 s"),
                    Not(HasSubstr("ERROR"))));
}

TEST_F(Launcher, RestartsNoMoreThanAllowed) {
  LaunchOptions options = sh(2, fails_until_attempt_2);
  options.max_restarts = 1;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 74);
  EXPECT_THAT(launched.out(), Not(HasSubstr("attempt 2")));
  EXPECT_THAT(launched.err(), HasSubstr("after 1 of 1 restarts"));
}

TEST_F(Launcher, RestartsAfterASignal) {
  LaunchOptions options = sh(2,
                             "[ $RANK$POLYSKETCH_ATTEMPT = 00 ] && kill -KILL $$\n[ "
                             "$POLYSKETCH_ATTEMPT = 1 ] && exit 0\n" +
                                 wait_for_ever);
  options.max_restarts = 1;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 0) << launched.err();
  EXPECT_THAT(launched.err(), HasSubstr("was killed by signal 9 (Killed)"));
}

TEST_F(Launcher, DoesNotRepeatWhatARestartCannotMend) {
  for (const int code : {1, 64, 65, 66, 73, 77, 78, 80, 81, 82, 128 + SIGTERM}) {
    LaunchOptions options = sh(1, fmt::format("exit {}", code));
    options.max_restarts = 3;
    Launched launched(options);
    EXPECT_EQ(launched.wait(), code);
    EXPECT_THAT(launched.err(),
                AllOf(HasSubstr("which a restart does not mend"), Not(HasSubstr("restart 1"))))
        << code;
  }
}

TEST_F(Launcher, RestartsOnWhatTheUserSays) {
  LaunchOptions options = sh(1, "[ $POLYSKETCH_ATTEMPT = 1 ] || exit 82");
  options.max_restarts = 1;
  options.restart_on = parse_restart_rule("82");
  EXPECT_EQ(Launched(options).wait(), 0);
  options.restart_on = parse_restart_rule("none");
  EXPECT_EQ(Launched(options).wait(), 82);
}

TEST_F(Launcher, PassesASignalOnOnce) {
  for (const auto& [sent, got] : {std::pair(SIGTERM, "TERM"), std::pair(SIGINT, "INT"),
                                  std::pair(SIGUSR1, "USR1"), std::pair(SIGHUP, "TERM")}) {
    SCOPED_TRACE(sent);
    std::string traps;
    for (const char* name : {"TERM", "INT", "USR1", "HUP"})
      traps += fmt::format("trap 'echo {} >> $D/got$RANK; stop=1' {}\n", name, name);
    LaunchOptions options = sh(2, traps +
                                      "echo $$ > $D/ready$RANK; while [ -z $stop ]; do sleep 0.02; "
                                      "done; sleep 0.1; rm $D/ready$RANK; exit 75");
    options.max_restarts = 3;
    Launched launched(options);
    ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
    launched.signal(sent);
    EXPECT_EQ(launched.wait(), 75);
    for (const char* rank : {"0", "1"}) {
      EXPECT_EQ(read_text(folder_ / (std::string("got") + rank)), std::string(got) + "\n");
      std::filesystem::remove(folder_ / (std::string("got") + rank));
    }
    EXPECT_THAT(launched.err(),
                AllOf(HasSubstr("passed on to the ranks"), HasSubstr("stopped on request"),
                      Not(HasSubstr("restart 1"))));
  }
}

TEST_F(Launcher, PassesOnWhateverAsksForAnEnd) {
  for (const int number :
       {SIGQUIT, SIGUSR2, SIGALRM, SIGXCPU, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGRTMIN + 2}) {
    SCOPED_TRACE(number);
    LaunchOptions options = sh(2, fmt::format("trap 'stop=1' {}\n", number) +
                                      "echo $$ > $D/ready$RANK; while [ -z $stop ]; do sleep 0.02; "
                                      "done; rm $D/ready$RANK; exit 75");
    Launched launched(options);
    ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
    launched.signal(number);
    EXPECT_EQ(launched.wait(), 75) << launched.err();
  }
}

/// When a terminal goes away the shell and the kernel both say so, then the session's end follows.
TEST_F(Launcher, AHangUpMayComeTwice) {
  Launched launched(sh(2,
                       "trap 'stop=1' TERM\n"
                       "echo $$ > $D/ready$RANK; while [ -z $stop ]; do sleep 0.02; done\n"
                       "while [ ! -e $D/go ]; do sleep 0.02; done; exit 75"));
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
  for (int i = 0; i < 3; ++i) {
    launched.signal(SIGHUP);
    ASSERT_TRUE(eventually([&] { return launched.err().find("passed on") != std::string::npos; }));
  }
  launched.signal(SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  write_text(folder_ / "go", "");
  EXPECT_EQ(launched.wait(), 75) << launched.err();
}

TEST_F(Launcher, ASignalThatWasIgnoredStaysIgnoredForAll) {
  Launched launched(sh(2, "trap 'exit 75' TERM\nkill -HUP $$\n" + wait_for_ever),
                    [] { signal(SIGHUP, SIG_IGN); });
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); })) << launched.err();
  launched.signal(SIGHUP);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_THAT(launched.err(), Not(HasSubstr("passed on")));
  launched.signal(SIGTERM);
  EXPECT_EQ(launched.wait(), 75) << launched.err();
}

TEST_F(Launcher, ASecondSignalKills) {
  Launched launched(sh(2, "trap '' TERM INT\n" + wait_for_ever));
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
  launched.signal(SIGTERM);
  ASSERT_TRUE(eventually([&] { return launched.err().find("passed on") != std::string::npos; }));
  launched.signal(SIGINT);
  EXPECT_EQ(launched.wait(), 128 + SIGINT);
  expect_all_gone("ready", 2);
}

TEST_F(Launcher, KillsWhoDoesNotStop) {
  LaunchOptions options = sh(2, "trap '' TERM\n" + wait_for_ever);
  options.stop_grace = 0.2;
  Launched launched(options);
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
  launched.signal(SIGTERM);
  EXPECT_EQ(launched.wait(), 128 + SIGKILL);
  expect_all_gone("ready", 2);
}

TEST_F(Launcher, AStopBeforeTheRanksListenIsNoFailure) {
  LaunchOptions options = sh(2, wait_for_ever);  // no trap: the signal kills
  options.max_restarts = 3;
  Launched launched(options);
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
  launched.signal(SIGTERM);
  EXPECT_EQ(launched.wait(), 128 + SIGTERM);
  EXPECT_THAT(launched.err(), AllOf(Not(HasSubstr("ERROR")), Not(HasSubstr("restart 1"))));
}

TEST_F(Launcher, AFailureWhileStoppingIsNotRestarted) {
  LaunchOptions options = sh(2, "trap 'exit 74' TERM\n" + wait_for_ever);
  options.max_restarts = 3;
  Launched launched(options);
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 2); }));
  launched.signal(SIGTERM);
  EXPECT_EQ(launched.wait(), 74);
  EXPECT_THAT(launched.err(),
              AllOf(HasSubstr(", while it was to stop: see"), Not(HasSubstr("restart 1"))));
}

TEST_F(Launcher, RanksThatStopByThemselvesAreNoFailure) {
  LaunchOptions options = sh(2, "[ $RANK = 1 ] && sleep 0.2; exit 75");
  options.max_restarts = 3;
  Launched launched(options);
  EXPECT_EQ(launched.wait(), 75);
  EXPECT_THAT(launched.err(), Not(HasSubstr("ERROR")));
}

TEST_F(Launcher, StopsBetweenAttempts) {
  LaunchOptions options = sh(1, "exit 70");
  options.max_restarts = 3;
  options.restart_pause = 1000;
  Launched launched(options);
  ASSERT_TRUE(
      eventually([&] { return launched.err().find("restart 1 of 3") != std::string::npos; }));
  launched.signal(SIGTERM);
  EXPECT_EQ(launched.wait(), 75);
}

TEST_F(Launcher, ItsOwnSuddenDeathIsThatOfTheRanks) {
  Launched launched(sh(3, "trap '' HUP TERM INT\n" + wait_for_ever));
  ASSERT_TRUE(eventually([&] { return all_exist("ready", 3); }));
  launched.signal(SIGKILL);
  EXPECT_EQ(launched.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] {
    const auto processes = processes_in(folder_.path(), "ready");
    return std::all_of(processes.begin(), processes.end(), is_gone);
  }));
}

TEST_F(Launcher, LeavesNothingOfWhatRanksStarted) {
  // One stays in the group of its rank, one leaves it; both hold the pipes.
  Launched launched(
      sh(2,
         "sh -c 'echo $$ > $D/child$RANK; exec sleep 1000' &\nsetsid sh -c 'echo $$ > "
         "$D/child-a$RANK; exec sleep 1000' &\n"
         "while [ ! -s $D/child$RANK -o ! -s $D/child-a$RANK ]; do sleep 0.01; done; echo done"),
      [&] { setenv("D", folder_.path().c_str(), 1); });
  EXPECT_EQ(launched.wait(), 0);
  EXPECT_THAT(launched.out_lines(), UnorderedElementsAre("[0] done", "[1] done"));
  expect_all_gone("child", 4);
}

TEST_F(Launcher, KillsWhatAFinishedRankStartedThoughOthersGoOn) {
  Launched launched(sh(2,
                       "[ $RANK = 0 ] && { sleep 1000 & echo $! > $D/child.part; mv $D/child.part "
                       "$D/child; exit 0; }\n"
                       "while [ ! -s $D/child ]; do sleep 0.01; done; while kill -0 $(cat "
                       "$D/child); do sleep 0.02; done 2>/dev/null"));
  EXPECT_EQ(launched.wait(), 0);
  expect_all_gone("child", 1);
}

TEST_F(Launcher, DoesNotListenToWhoOutlivesARank) {
  Launched launched(
      sh(1,
         "for i in 1 2 3 4 5 6; do setsid sh -c 'echo $$ > $D/child$0; exec yes' $i & done\n"
         "for i in 1 2 3 4 5 6; do while [ ! -s $D/child$i ]; do sleep 0.01; done; done; exit 65"),
      [&] { setenv("D", folder_.path().c_str(), 1); });
  EXPECT_EQ(launched.wait(), 65);
  expect_all_gone("child", 6);
}

TEST_F(Launcher, AProgramThatCannotBeStarted) {
  LaunchOptions options = sh(2, "");
  options.command = {(folder_ / "nothing").string()};
  options.max_restarts = 3;
  Launched missing(options);
  EXPECT_EQ(missing.wait(), 66);
  EXPECT_THAT(missing.err(), HasSubstr("nothing: cannot be started: No such file or directory"));
  write_text(folder_ / "nothing", "text");
  EXPECT_EQ(Launched(options).wait(), 77);
}

TEST_F(Launcher, RefusesContradictions) {
  const auto refused = [&](const std::function<void(LaunchOptions&)>& change) {
    LaunchOptions options = sh(1, "touch $D/started");
    change(options);
    Launched launched(options);
    EXPECT_EQ(launched.wait(), 64);
    return launched.err();
  };
  EXPECT_THAT(refused([](LaunchOptions& o) { o.command.clear(); }), HasSubstr("nothing to launch"));
  EXPECT_THAT(refused([](LaunchOptions& o) { o.node_rank = 1; }),
              HasSubstr("--node-rank 1: want 0 to 0"));
  EXPECT_THAT(refused([](LaunchOptions& o) {
                o.nodes = 2;
                o.host = "a";
              }),
              HasSubstr("--port"));
  EXPECT_THAT(refused([](LaunchOptions& o) {
                o.nodes = 2;
                o.port = 1;
              }),
              HasSubstr("--host"));
  EXPECT_FALSE(exists("started"));
}

}  // namespace
}  // namespace polysketch::test
