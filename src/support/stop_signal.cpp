// SPDX-License-Identifier: Apache-2.0
#include "support/stop_signal.hpp"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

namespace polysketch {
namespace {

constexpr std::array kSignals{SIGTERM, SIGINT, SIGUSR1};
std::atomic<int> requested_by{0};
static_assert(std::atomic<int>::is_always_lock_free, "the handler may touch nothing else");

extern "C" void handle_stop(int number) {
  int none = 0;
  if (!requested_by.compare_exchange_strong(none, number)) _exit(128 + number);
}

}  // namespace

void StopSignal::install() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  sigset_t asked;
  sigemptyset(&asked);
  for (const int number : kSignals) sigaddset(&asked, number);
  // The one thread that the signals reach. It blocks everything else.
  std::thread([] {
    sigset_t others;
    sigfillset(&others);
    for (const int number : kSignals) sigdelset(&others, number);
    ::pthread_sigmask(SIG_SETMASK, &others, nullptr);
    for (;;) ::pause();
  }).detach();
  ::pthread_sigmask(SIG_BLOCK, &asked, nullptr);
  struct sigaction action {};
  action.sa_handler = handle_stop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int number : kSignals) ::sigaction(number, &action, nullptr);
}

bool StopSignal::requested() { return requested_by.load(std::memory_order_relaxed) != 0; }
int StopSignal::number() { return requested_by.load(std::memory_order_relaxed); }
void StopSignal::reset_for_test() { requested_by.store(0); }

}  // namespace polysketch
