// SPDX-License-Identifier: Apache-2.0
#include "support/crash_report.hpp"

#include <execinfo.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace polysketch {
namespace {

constexpr std::array kSignals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
constexpr size_t kStackBytes = 256 * 1024;  // AVX-512 frames of a signal take several KiB

void put(const char* text) { (void)!::write(STDERR_FILENO, text, std::strlen(text)); }

const char* name_of(int number) {
  switch (number) {
    case SIGSEGV:
      return "SIGSEGV, memory that is not there";
    case SIGBUS:
      return "SIGBUS, mapped memory whose file was cut or whose disk is full";
    case SIGFPE:
      return "SIGFPE, integer arithmetic";
    case SIGILL:
      return "SIGILL, an instruction that this CPU does not have";
    default:
      return "SIGABRT";
  }
}

extern "C" void report_crash(int number) {
  // The handler was reset on entry, so a fault in here ends the process.
  put("\nERROR 70: the program dies of ");
  put(name_of(number));
  put("; the last checkpoint is untouched, the same command continues from it; please report these "
      "lines\n");
  std::array<void*, 64> frames{};
  const int depth = ::backtrace(frames.data(), static_cast<int>(frames.size()));
  ::backtrace_symbols_fd(frames.data(), depth, STDERR_FILENO);
  ::raise(number);
}

}  // namespace

void install_crash_report() {
  // The first call loads the unwinder, which a handler must not do.
  std::array<void*, 2> frames{};
  ::backtrace(frames.data(), static_cast<int>(frames.size()));
  // Where the main thread's stack has overflowed a handler needs another one.
  void* memory =
      ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) {
    stack_t stack{};
    stack.ss_sp = memory;
    stack.ss_size = kStackBytes;
    ::sigaltstack(&stack, nullptr);
  }
  struct sigaction action {};
  action.sa_handler = report_crash;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (const int number : kSignals) ::sigaction(number, &action, nullptr);
}

}  // namespace polysketch
