// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace polysketch::test {

/// A system call of a child, with what matters of its arguments.
struct Call {
  uint64_t number = 0;
  std::string
      path;  ///< of the file that its first argument, a descriptor, stands for; empty if it is none
  std::string from, to;  ///< of a rename
};

struct TracedRun {
  bool traced = false;    ///< false where the kernel does not let a process trace its child
  bool finished = false;  ///< the child came to its end before it was stopped
  std::vector<Call> calls;
};

namespace detail {

inline std::string text_of(pid_t child, uint64_t address) {
  std::string text;
  while (text.size() < 4096) {
    errno = 0;
    const long word = ptrace(PTRACE_PEEKDATA, child, address + text.size(), nullptr);
    if (errno != 0) break;
    for (size_t i = 0; i < sizeof(word); ++i) {
      const char c = static_cast<char>(word >> (8 * i));
      if (c == '\0') return text;
      text.push_back(c);
    }
  }
  return text;
}

inline Call describe(pid_t child, const __ptrace_syscall_info& info) {
  Call call;
  call.number = info.entry.nr;
  std::error_code error;
  const auto link = std::filesystem::path("/proc") / std::to_string(child) / "fd" /
                    std::to_string(static_cast<int>(info.entry.args[0]));
  call.path = std::filesystem::read_symlink(link, error).string();
#ifdef SYS_rename
  if (call.number == SYS_rename)
    call.from = text_of(child, info.entry.args[0]), call.to = text_of(child, info.entry.args[1]);
#endif
  if (call.number == SYS_renameat2 || call.number == SYS_renameat) {
    call.from = text_of(child, info.entry.args[1]);
    call.to = text_of(child, info.entry.args[3]);
  }
  return call;
}

}  // namespace detail

/// Runs `action` in a child and kills the child, like a power switch, at the entry to its system
/// call number `stop_at` (from 0, counted from the start of the action). So every state between two
/// changes of the file system is reached, without a word about it in the tested code.
inline TracedRun run_until_call(const std::function<void()>& action, size_t stop_at) {
  TracedRun run;
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(99);
    raise(SIGSTOP);
    action();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) return run;
  run.traced = true;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  while (true) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    waitpid(child, &status, 0);
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      run.finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
      return run;
    }
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
    __ptrace_syscall_info info{};
    if (ptrace(static_cast<__ptrace_request>(PTRACE_GET_SYSCALL_INFO), child, sizeof(info),
               &info) <= 0)
      return run;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    if (run.calls.size() == stop_at) break;
    run.calls.push_back(detail::describe(child, info));
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return run;
}

}  // namespace polysketch::test
