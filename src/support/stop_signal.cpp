// SPDX-License-Identifier: Apache-2.0
#include "support/stop_signal.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace polysketch {
namespace {

std::atomic<int> requested_by{0};
static_assert(std::atomic<int>::is_always_lock_free, "the handler may touch nothing else");

extern "C" void handle_stop(int number) {
  int none = 0;
  if (!requested_by.compare_exchange_strong(none, number)) _exit(128 + number);
}

}  // namespace

void StopSignal::install() {
  struct sigaction action {};
  action.sa_handler = handle_stop;
  action.sa_flags = SA_RESTART;  // reads and writes go on; only polling sees the request
  sigemptyset(&action.sa_mask);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
}

bool StopSignal::requested() { return requested_by.load(std::memory_order_relaxed) != 0; }
int StopSignal::number() { return requested_by.load(std::memory_order_relaxed); }
void StopSignal::reset_for_test() { requested_by.store(0); }

}  // namespace polysketch
