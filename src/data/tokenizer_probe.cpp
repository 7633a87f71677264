// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_probe.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

[[noreturn]] void run_child(int out, const std::function<std::string()>& work) {
  // A model that keeps SentencePiece busy for ever must not outlive who tries it.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The program's own handlers (stop signals, crash reports) are not for this child.
  for (int number = 1; number < NSIG; ++number) std::signal(number, SIG_DFL);
  sigset_t none_blocked;
  sigemptyset(&none_blocked);
  sigprocmask(SIG_SETMASK, &none_blocked, nullptr);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  const int null = ::open("/dev/null", O_WRONLY);
  if (null >= 0) dup2(null, STDERR_FILENO);
  std::string message;
  try {
    message = work();
  } catch (const std::exception& error) {
    message = error.what();
  }
  message.resize(std::min<size_t>(message.size(), 4096));
  const bool told = message.empty() || ::write(out, message.data(), message.size()) ==
                                           static_cast<ssize_t>(message.size());
  _exit(message.empty() && told ? 0 : 1);
}

/// What the child said, until it closes its end or the time is over.
bool read_message(int in, std::chrono::steady_clock::time_point end, std::string& message) {
  std::array<char, 4096> buffer{};
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          end - std::chrono::steady_clock::now())
                          .count();
    if (left <= 0) return false;
    pollfd waiting{in, POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(left)) <= 0) continue;
    const ssize_t got = ::read(in, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    message.append(buffer.data(), static_cast<size_t>(got));
  }
}

}  // namespace

std::string probe_in_child(const std::function<std::string()>& work, int seconds) {
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0)
    throw UserError(ExitCode::io, fmt::format("no pipe to a probe process: {}", reason_of(errno)));
  const pid_t child = fork();
  if (child < 0) {
    const int error = errno;
    ::close(pipe[0]);
    ::close(pipe[1]);
    throw UserError(exit_code_of(error, ExitCode::io),
                    fmt::format("no probe process: {}", reason_of(error)));
  }
  if (child == 0) run_child(pipe[1], work);
  ::close(pipe[1]);
  std::string message;
  const bool in_time = read_message(
      pipe[0], std::chrono::steady_clock::now() + std::chrono::seconds(seconds), message);
  ::close(pipe[0]);
  if (!in_time) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) return fmt::format("SentencePiece takes more than {} s to try it", seconds);
  if (WIFSIGNALED(status))
    return fmt::format("SentencePiece crashes on it (signal {}, {})", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0 && message.empty())
    return fmt::format("SentencePiece ends on it with status {}", WEXITSTATUS(status));
  return message;
}

}  // namespace polysketch
