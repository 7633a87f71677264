// SPDX-License-Identifier: Apache-2.0
// A launcher in a process of its own, with shell scripts as ranks.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "launch/launcher.hpp"
#include "support/error.hpp"

namespace polysketch::test {

/// Nothing here is expected to take that long; a test fails then instead of hanging.
constexpr auto kPatience = std::chrono::seconds(60);

inline bool eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

/// Not there, or only waiting for its parent to notice.
inline bool is_gone(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  if (!std::getline(file, text)) return true;
  const size_t state = text.rfind(')');
  return state == std::string::npos || text.substr(state + 2, 1) == "Z";
}

/// Options of `ranks` ranks that run a script of sh. They find `folder` as the script's $D.
inline LaunchOptions sh(int64_t ranks, const std::string& script,
                        const std::filesystem::path& folder) {
  LaunchOptions options;
  options.command = {"/bin/sh", "-c", fmt::format("D='{}'\n{}", folder.string(), script)};
  options.local_world = ranks;
  options.restart_pause = 0.01;
  return options;
}

class Launched {
 public:
  /// before: runs in the new process, for example to send its output somewhere else than to the
  /// files.
  explicit Launched(const LaunchOptions& options, const std::function<void()>& before = {}) {
    for (const char* name : {"out", "err"}) write_text(folder_ / name, "");
    process_ = fork();
    if (process_ != 0) return;
    for (const auto& [descriptor, name] :
         {std::pair(STDOUT_FILENO, "out"), std::pair(STDERR_FILENO, "err")}) {
      dup2(::open((folder_ / name).c_str(), O_WRONLY | O_APPEND), descriptor);
    }
    if (before) before();
    int code = 99;
    try {
      code = launch(options);
    } catch (const UserError& error) {
      code = static_cast<int>(error.code());
      dprintf(STDERR_FILENO, "ERROR %d: %s\n", code, error.what());
    }
    _exit(code);
  }
  ~Launched() {
    if (!ended_) kill(process_, SIGKILL);
    wait();
  }

  pid_t process() const { return process_; }
  void signal(int number) const { kill(process_, number); }
  /// As a shell says it; -1 if it did not end.
  int wait() {
    if (!ended_) {
      ended_ = eventually([&] { return waitpid(process_, &status_, WNOHANG) == process_; });
      if (!ended_) {
        ADD_FAILURE() << "the launcher hangs\n" << out() << err();
        return -1;
      }
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  std::string out() const { return read_text(folder_ / "out"); }
  std::string err() const { return read_text(folder_ / "err"); }
  std::vector<std::string> out_lines() const { return lines(out()); }
  std::vector<std::string> err_lines() const { return lines(err()); }

  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> all;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) all.push_back(line);
    return all;
  }

 private:
  TemporaryFolder folder_;
  pid_t process_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

/// Numbers that scripts have written into files `folder`/`prefix`*.
inline std::vector<pid_t> processes_in(const std::filesystem::path& folder,
                                       const std::string& prefix) {
  std::vector<pid_t> all;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    std::ifstream file(entry.path());
    for (pid_t process = 0; file >> process;) all.push_back(process);
  }
  return all;
}

class Launcher : public testing::Test {
 protected:
  LaunchOptions sh(int64_t ranks, const std::string& script) const {
    return test::sh(ranks, script, folder_.path());
  }
  bool exists(const std::string& name) const { return std::filesystem::exists(folder_ / name); }
  bool all_exist(const std::string& prefix, int64_t ranks) const {
    for (int64_t i = 0; i < ranks; ++i) {
      if (!exists(prefix + std::to_string(i))) return false;
    }
    return true;
  }
  void expect_all_gone(const std::string& prefix, size_t count) const {
    const auto processes = processes_in(folder_.path(), prefix);
    EXPECT_EQ(processes.size(), count);
    for (const pid_t process : processes) EXPECT_TRUE(is_gone(process)) << process;
  }

  TemporaryFolder folder_;
};

/// Says that it is ready, then waits for what comes. A shell runs traps only between commands, so
/// the sleeps are short.
inline const std::string wait_for_ever = "echo $$ > $D/ready$RANK\nwhile :; do sleep 0.02; done\n";

}  // namespace polysketch::test
