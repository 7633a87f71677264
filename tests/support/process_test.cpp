// SPDX-License-Identifier: Apache-2.0
// What touches the whole process: signals, log lines, what the program knows about itself.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "helpers/test_helpers.hpp"
#include "support/build_info.hpp"
#include "support/crash_report.hpp"
#include "support/durable_file.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {

using testing::HasSubstr;

/// Lets others run until something holds. In the child of a process that has taken its signals
/// already nobody takes them: that is a failure, not a test without an end.
void yield_until(const std::function<bool()>& holds) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > limit) {
      std::fputs("waited for a signal for a minute\n", stderr);
      std::_Exit(99);
    }
    std::this_thread::yield();
  }
}

/// The request comes through another thread.
void wait_for_request() {
  yield_until([] { return StopSignal::requested(); });
}

/// Two of one number that wait to be taken become one.
void wait_until_taken(int number) {
  yield_until([&] {
    sigset_t waiting;
    return sigpending(&waiting) != 0 || sigismember(&waiting, number) != 1;
  });
}

void send_to_itself(int number) {
  kill(getpid(), number);
  wait_until_taken(number);
}

/// A process of its own; its exit code, or 128 + n if signal n ended it.
int in_child(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(StopSignal, EverySignalThatWouldEndAProgramAsks) {
  const std::vector<int>& all = stop_signals();
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGQUIT, SIGUSR2, SIGALRM, SIGVTALRM,
                           SIGPROF, SIGIO, SIGPWR, SIGXCPU, SIGSTKFLT, SIGRTMIN, SIGRTMAX})
    EXPECT_TRUE(std::find(all.begin(), all.end(), number) != all.end()) << number;
  for (const int number : {SIGKILL, SIGSTOP, SIGSEGV, SIGABRT, SIGPIPE, SIGXFSZ, SIGCHLD, SIGCONT})
    EXPECT_TRUE(std::find(all.begin(), all.end(), number) == all.end()) << number;
  for (const int number : all) {
    EXPECT_EQ(in_child([number] {
                StopSignal::install();
                kill(getpid(), number);
                wait_for_request();
                _exit(StopSignal::number() == number ? 0 : 1);
              }),
              0)
        << number;
  }
}

TEST(StopSignal, WhatWasIgnoredStaysIgnored) {
  EXPECT_EQ(in_child([] {
              signal(SIGHUP, SIG_IGN);
              StopSignal::install();
              kill(getpid(), SIGHUP);
              kill(getpid(), SIGUSR1);  // delivered after the one before it
              wait_for_request();
              _exit(StopSignal::number() == SIGUSR1 ? 0 : 1);
            }),
            0);
}

/// A terminal that goes away sends SIGHUP by two ways, and the session's end SIGTERM behind it; a
/// limit of time sends SIGXCPU every second.
TEST(StopSignal, WhatComesTwiceByItselfOnlyAsks) {
  for (const int number : {SIGHUP, SIGXCPU, SIGALRM, SIGIO, SIGPWR, SIGRTMIN}) {
    EXPECT_EQ(in_child([number] {
                StopSignal::install();
                for (int i = 0; i < 3; ++i) send_to_itself(number);
                send_to_itself(SIGTERM);  // the first of its kind
                send_to_itself(number);
                _exit(StopSignal::number() == number ? 0 : 1);
              }),
              0)
        << number;
  }
}

/// A manager of services signals the launcher and its processes; then the launcher's own comes.
TEST(StopSignal, WhatALauncherPassesOnIsNoSecondOne) {
  for (const bool launcher_first : {false, true}) {
    int up[2], down[2];
    ASSERT_EQ(pipe(up), 0);
    ASSERT_EQ(pipe(down), 0);
    const auto tell = [](const int* pipe) { ASSERT_EQ(write(pipe[1], "x", 1), 1); };
    const auto hear = [](const int* pipe) {
      char byte = 0;
      ASSERT_EQ(read(pipe[0], &byte, 1), 1);
    };
    const pid_t child = fork();
    if (child == 0) {
      setenv("POLYSKETCH_ATTEMPT", "0", 1);
      StopSignal::install();
      if (!launcher_first) send_to_itself(SIGTERM);
      tell(up);
      hear(down);
      wait_until_taken(SIGTERM);
      wait_until_taken(SIGINT);
      if (launcher_first) send_to_itself(SIGTERM);
      wait_for_request();
      tell(up);  // it is still here
      send_to_itself(SIGTERM);
      sleep(60);
      _exit(0);
    }
    close(up[1]);
    hear(up);
    kill(child, SIGTERM);
    kill(child, SIGINT);
    tell(down);
    hear(up);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM) << "another's second one";
    for (const int end : {up[0], down[0], down[1]}) close(end);
  }
}

TEST(StopSignal, EndsAtOnceAndTakesTemporaryFilesAway) {
  for (const bool asked_first : {false, true}) {
    const test::TemporaryFolder folder;
    for (const int number : {SIGTERM, SIGINT, SIGUSR2}) {
      EXPECT_EQ(in_child([&] {
                  asked_first ? StopSignal::install() : StopSignal::install_to_end();
                  DurableFile file(folder / "big");
                  file.write("half", 4);
                  const DurableFile other(folder / "small");
                  kill(getpid(), number);
                  if (asked_first) {
                    wait_for_request();
                    kill(getpid(), number);
                  }
                  for (;;) pause();
                }),
                128 + number);
      EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << number;
    }
  }
}

TEST(SignalName, IsAsPeopleTypeIt) {
  EXPECT_EQ(signal_name(SIGTERM), "SIGTERM");
  EXPECT_EQ(signal_name(SIGUSR1), "SIGUSR1");
  EXPECT_EQ(signal_name(SIGRTMIN), "SIGRTMIN");
  EXPECT_EQ(signal_name(SIGRTMIN + 3), "SIGRTMIN+3");
}

TEST(StopSignal, FirstAsksSecondEnds) {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGQUIT, SIGUSR2}) {
    const pid_t child = fork();
    if (child == 0) {
      StopSignal::install();
      if (StopSignal::requested() || StopSignal::number() != 0) _exit(1);
      kill(getpid(), number);
      wait_for_request();
      if (StopSignal::number() != number) _exit(2);
      kill(getpid(), number);
      sleep(60);
      _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + number);
  }
}

TEST(CrashReport, WritesTheCallStackAndDiesOfTheSignal) {
  const test::TemporaryFolder folder;
  for (const int number : {SIGSEGV, SIGABRT, SIGILL}) {
    const std::string file = (folder / "stderr").string();
    const pid_t child = fork();
    if (child == 0) {
      dup2(open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
      install_crash_report();
      raise(number);
      _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    EXPECT_EQ(WTERMSIG(status), number);
    const std::string text = test::read_text(file);
    EXPECT_THAT(text, HasSubstr("ERROR 70: the program dies of SIG"));
    EXPECT_THAT(text, HasSubstr("support_test(+0x"));
  }
}

TEST(StopSignal, NeverInterruptsAThreadThatComputes) {
  const auto blocked = [] {
    sigset_t mask;
    sigemptyset(&mask);
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return std::all_of(stop_signals().begin(), stop_signals().end(),
                       [&](int number) { return sigismember(&mask, number) == 1; });
  };
  StopSignal::install();
  EXPECT_TRUE(blocked());
  bool in_thread = false;
  std::thread([&] { in_thread = blocked(); }).join();
  EXPECT_TRUE(in_thread);
}

TEST(StopSignal, ResetForTests) {
  StopSignal::install();
  kill(getpid(), SIGUSR1);
  wait_for_request();
  EXPECT_EQ(StopSignal::number(), SIGUSR1);
  StopSignal::reset_for_test();
  EXPECT_FALSE(StopSignal::requested());
}

TEST(Log, LinesGoToStandardErrorAndTheFile) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "log.txt", "earlier\n");
  attach_log_file(folder / "log.txt");
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  log_info("plain {braces} %v 100%");
  log_warning("careful");
  log_line(LogLevel::debug, "hidden");
  set_log_level(LogLevel::debug);
  log_line(LogLevel::debug, "shown");
  set_log_level(LogLevel::info);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "plain {braces} %v 100%\nwarning: careful\ndebug: shown\n");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  const std::string file = test::read_text(folder / "log.txt");
  EXPECT_THAT(file, testing::MatchesRegex("earlier\n"
                                          "[0-9-]+ [0-9:.]+ info plain .braces. %v 100%\n"
                                          "[0-9-]+ [0-9:.]+ warning careful\n"
                                          "[0-9-]+ [0-9:.]+ debug shown\n"));
}

TEST(Log, HooksSurroundEveryLine) {
  std::string trace;
  set_log_hooks([&] { trace += "<"; }, [&] { trace += ">"; });
  testing::internal::CaptureStderr();
  log_info("one");
  log_info("two");
  set_log_hooks({}, {});
  log_info("three");
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(trace, "<><>");
}

TEST(Log, ThreadsDoNotMixLines) {
  testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) log_info(std::string(50, static_cast<char>('a' + t)));
    });
  }
  for (auto& thread : threads) thread.join();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.size(), 4u * 200 * 51);
  for (size_t at = 0; at < text.size(); at += 51) {
    ASSERT_EQ(text.substr(at, 51), std::string(50, text[at]) + "\n");
  }
}

TEST(Log, AFileThatCannotBeWrittenWarnsOnce) {
  const test::TemporaryFolder folder;
  testing::internal::CaptureStderr();
  attach_log_file(folder.path());  // a folder
  log_info("one");
  std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("warning: log file not written"));
  EXPECT_THAT(text, HasSubstr("\none\n"));

  testing::internal::CaptureStderr();
  attach_log_file("/dev/full");
  log_info("one");
  log_info("two");
  text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("one\nwarning: log file given up"));
  EXPECT_TRUE(text.ends_with("\ntwo\n")) << text;
}

TEST(BuildInfo, NamesItself) {
  const auto build = build_info();
  ASSERT_GE(build.size(), 2u);
  EXPECT_EQ(build[0].first, "polysketch");
  EXPECT_EQ(build[1].first, "commit");
  for (const auto& [name, version] : build) EXPECT_FALSE(name.empty() || version.empty()) << name;
  const auto machine = machine_info();
  for (const auto& [name, value] : machine) EXPECT_FALSE(name.empty() || value.empty()) << name;
  std::string host(256, '\0');
  gethostname(host.data(), host.size());
  EXPECT_EQ(machine[0].second, host.c_str());
}

}  // namespace
}  // namespace polysketch
