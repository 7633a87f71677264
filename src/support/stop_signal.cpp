// SPDX-License-Identifier: Apache-2.0
#include "support/stop_signal.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>  // NOLINT: sigabbrev_np is the C library's
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "support/durable_file.hpp"

namespace polysketch {
namespace {

std::atomic<int> requested_by{0};
std::atomic<bool> insisted{false}, only_ends{false};
// Whose signals are passed on ones; -1 without a launcher.
pid_t launcher = -1;

[[noreturn]] void end_by(int number) {
  ::signal(number, SIG_DFL);
  sigset_t this_one;
  ::sigemptyset(&this_one);
  ::sigaddset(&this_one, number);
  ::pthread_sigmask(SIG_UNBLOCK, &this_one, nullptr);
  ::raise(number);
  ::_exit(128 + number);
}

// Runs on the thread that does nothing but wait for it, so it may do what other code may.
extern "C" void handle_stop(int number, siginfo_t* information, void*) {
  if (only_ends) {
    remove_temporary_files();
    end_by(number);
  }
  int none = 0;
  requested_by.compare_exchange_strong(none, number);
  const bool passed_on = information->si_code == SI_USER && information->si_pid == launcher;
  if (passed_on || !insists(number) || !insisted.exchange(true)) return;
  remove_temporary_files();
  ::_exit(128 + number);
}

void install_handler() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  // Set by 'polysketch launch' and by torchrun for what they start.
  if (std::getenv("POLYSKETCH_ATTEMPT") != nullptr || std::getenv("TORCHELASTIC_RUN_ID") != nullptr)
    launcher = ::getppid();
  std::vector<int> taken;
  sigset_t asked;
  ::sigemptyset(&asked);
  for (const int number : stop_signals()) {
    struct sigaction before {};
    if (::sigaction(number, nullptr, &before) != 0 || before.sa_handler != SIG_DFL) continue;
    taken.push_back(number);
    ::sigaddset(&asked, number);
  }
  // The one thread that the signals reach. It blocks everything else, and lives longer than what
  // ends with main(): it may use nothing that does.
  sigset_t others;
  ::sigfillset(&others);
  for (const int number : taken) ::sigdelset(&others, number);
  std::thread([others] {
    ::pthread_sigmask(SIG_SETMASK, &others, nullptr);
    for (;;) ::pause();
  }).detach();
  ::pthread_sigmask(SIG_BLOCK, &asked, nullptr);
  struct sigaction action {};
  action.sa_sigaction = handle_stop;
  action.sa_flags = SA_RESTART | SA_SIGINFO;
  ::sigfillset(&action.sa_mask);  // one after the other
  for (const int number : taken) ::sigaction(number, &action, nullptr);
}

}  // namespace

const std::vector<int>& stop_signals() {
  static const std::vector<int> all = [] {
    std::vector<int> numbers{SIGHUP,  SIGINT,    SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM,  SIGTERM,
                             SIGXCPU, SIGVTALRM, SIGPROF, SIGIO,   SIGPWR,  SIGSTKFLT};
    for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) numbers.push_back(number);
    std::sort(numbers.begin(), numbers.end());
    return numbers;
  }();
  return all;
}

bool insists(int number) {
  return number == SIGTERM || number == SIGINT || number == SIGQUIT || number == SIGUSR1 ||
         number == SIGUSR2;
}

std::string signal_name(int number) {
  if (const char* name = ::sigabbrev_np(number)) return fmt::format("SIG{}", name);
  if (number == SIGRTMIN) return "SIGRTMIN";
  if (number > SIGRTMIN && number <= SIGRTMAX) return fmt::format("SIGRTMIN+{}", number - SIGRTMIN);
  return fmt::format("signal {}", number);
}

void StopSignal::install() { install_handler(); }

void StopSignal::install_to_end() {
  only_ends = true;
  install_handler();
}

bool StopSignal::requested() { return requested_by.load(std::memory_order_relaxed) != 0; }
int StopSignal::number() { return requested_by.load(std::memory_order_relaxed); }
void StopSignal::reset_for_test() {
  requested_by.store(0);
  insisted.store(false);
}

}  // namespace polysketch
