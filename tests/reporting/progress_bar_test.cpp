// SPDX-License-Identifier: Apache-2.0
#include "reporting/progress_bar.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include "support/log.hpp"

namespace polysketch {
namespace {

/// What a process writes to the terminal that is its standard error.
std::string on_terminal(const std::function<void()>& action) {
  int terminal = -1;
  const winsize size{24, 120, 0, 0};
  const pid_t child = forkpty(&terminal, nullptr, nullptr, &size);
  if (child == 0) {
    action();
    _exit(0);
  }
  std::string seen;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = read(terminal, buffer.data(), buffer.size())) > 0;)
    seen.append(buffer.data(), static_cast<size_t>(got));
  int status = 0;
  waitpid(child, &status, 0);
  close(terminal);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return seen;
}

/// What stays on the screen: carriage return goes to the start of the row, ESC [ K erases the rest
/// of it.
std::string left_on_screen(const std::string& text) {
  std::string rows, row;
  size_t column = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 3, "\x1b[K") == 0) {
      row.resize(column);
      i += 2;
    } else if (text[i] == '\r') {
      column = 0;
    } else if (text[i] == '\n') {
      rows += row + "\n";
      row.clear();
      column = 0;
    } else {
      row.resize(std::max(row.size(), column + 1), ' ');
      row[column++] = text[i];
    }
  }
  return rows + row;
}

TEST(ProgressBar, ShowsRateAndTimeLeftAndLeavesNothing) {
  const std::string seen = on_terminal([] {
    ProgressBar bar("reading", 400, "files");
    bar.update(100);
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));
    bar.update(200, "a note");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    bar.update(300, "a note");
  });
  EXPECT_THAT(seen, testing::HasSubstr("reading  50 % 200/400 files"));
  EXPECT_THAT(seen, testing::HasSubstr("eta 0:0"));
  EXPECT_THAT(seen, testing::HasSubstr("a note"));
  EXPECT_EQ(left_on_screen(seen), "");
}

TEST(ProgressBar, ShowsNothingForShortWork) {
  EXPECT_EQ(on_terminal([] {
              ProgressBar bar("reading", 10, "files");
              for (int i = 0; i < 10; ++i) bar.update(i);
            }),
            "");
}

TEST(ProgressBar, NeverMixesWithLines) {
  const std::string seen = on_terminal([] {
    ProgressBar outer("outer", 1000, "steps");
    outer.update(0);
    std::this_thread::sleep_for(std::chrono::milliseconds(1050));
    std::thread other([] {
      for (int i = 0; i < 300; ++i) log_info("a line of another thread");
    });
    for (int i = 0; i < 300; ++i) outer.update(i);
    {
      ProgressBar inner("inner", 100, "B");
      inner.update(50);
      log_info("between");
    }
    other.join();
    outer.update(1000);
  });
  std::string want;
  const std::string left = left_on_screen(seen);
  EXPECT_EQ(std::count(left.begin(), left.end(), '\n'), 301);
  for (size_t at = 0; at < left.size();) {
    const size_t end = left.find('\n', at);
    const std::string row = left.substr(at, end - at);
    EXPECT_TRUE(row == "a line of another thread" || row == "between") << row;
    at = end == std::string::npos ? left.size() : end + 1;
  }
}

TEST(ProgressBar, StaysOutOfLogFiles) {
  testing::internal::CaptureStderr();
  {
    ProgressBar bar("reading", 10, "files");
    for (int i = 0; i <= 10; ++i) bar.update(i);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace polysketch
