// SPDX-License-Identifier: Apache-2.0
// What touches the whole process: signals, log lines, what the program knows about itself.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "helpers/test_helpers.hpp"
#include "support/build_info.hpp"
#include "support/crash_report.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {

using testing::HasSubstr;

/// The request comes through another thread.
void wait_for_request() {
  while (!StopSignal::requested()) std::this_thread::yield();
}

TEST(StopSignal, FirstAsksSecondEnds) {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) {
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
    return sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGINT) == 1 &&
           sigismember(&mask, SIGUSR1) == 1;
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
