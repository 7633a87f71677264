// SPDX-License-Identifier: Apache-2.0
#include "device/contention.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <omp.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr double kMuch = 0.1, kLittle = 0.03;  // share of an interval that a thread waits
constexpr double kCalm = 2;                    // seconds of little
constexpr double kWorthSaying = 5;             // seconds of much

/// Blocks all signals in the calling thread while it lives, and so in threads that are started.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;
  ~NoSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

/// While it lives, threads of OpenMP that wait sleep almost at once: GNU's library lets them spin
/// for a moment only as long as it manages more threads than there are processors, and these are
/// enough to make it so. They sleep themselves.
class IdleTeam {
 public:
  explicit IdleTeam(int64_t compute_threads)
      : size_(static_cast<int>(std::max<int64_t>(
            2, std::max<int64_t>(omp_get_num_procs(), ::sysconf(_SC_NPROCESSORS_ONLN)) -
                   compute_threads + 2))),
        thread_([this](const std::stop_token& stop) { run(stop); }) {}

 private:
  void run(const std::stop_token& stop) {
    std::atomic<int> started{0};
#pragma omp parallel num_threads(size_)
    ++started;
    // The team belongs to this thread and ends with it.
    std::unique_lock lock(mutex_);
    wake_.wait(lock, stop, [] { return false; });
  }

  int size_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;  // last: it uses the others
};

class Watcher {
 public:
  explicit Watcher(int64_t threads) : threads_(threads), gauge_(threads) {
    const NoSignals none;
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
  }

 private:
  void run(const std::stop_token& stop) {
    auto before = waited_for_processors();
    if (before.empty()) return;
    auto then = Clock::now();
    std::mutex mutex;
    std::condition_variable_any wake;
    for (;;) {
      std::unique_lock lock(mutex);
      wake.wait_for(lock, stop, kInterval, [] { return false; });
      if (stop.stop_requested()) return;
      auto after = waited_for_processors();
      const auto now = Clock::now();
      double waited = 0;
      for (const auto& [name, seconds] : after) {
        const auto known = before.find(name);
        waited += std::max(0.0, seconds - (known == before.end() ? 0 : known->second));
      }
      gauge_.add(waited, std::chrono::duration<double>(now - then).count());
      before = std::move(after);
      then = now;
      act();
    }
  }

  void act() {
    if (!gauge_.contended()) {
      team_.reset();
    } else if (!team_) {
      team_ = std::make_unique<IdleTeam>(threads_);
    }
    if (said_ || gauge_.seconds() < kWorthSaying || gauge_.share() < kMuch) return;
    said_ = true;
    log_warning(
        fmt::format("the processors are shared with other work: for {:.0f} s each of the {} "
                    "compute threads has "
                    "waited {:.0f} % of the time for one; if that lasts, fewer may be faster: set "
                    "training.threads below {}",
                    gauge_.seconds(), threads_, 100 * gauge_.share(), threads_));
  }

  int64_t threads_;
  ContentionGauge gauge_;
  std::unique_ptr<IdleTeam> team_;
  bool said_ = false;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace

std::map<std::string, double> waited_for_processors(const fs::path& process) {
  std::map<std::string, double> waited;
  std::error_code error;
  for (fs::directory_iterator entry(process / "task", error), end; !error && entry != end;
       entry.increment(error)) {
    std::ifstream file(entry->path() / "schedstat");
    int64_t running = 0, waiting = 0;  // nanoseconds
    if (file >> running >> waiting)
      waited[entry->path().filename().string()] = static_cast<double>(waiting) * 1e-9;
  }
  return waited;
}

void ContentionGauge::add(double waited, double elapsed) {
  if (elapsed <= 0) return;
  const double share = waited / elapsed / static_cast<double>(threads_);
  if (share >= kMuch) contended_ = true;
  calm_ = share > kLittle ? 0 : calm_ + elapsed;
  if (calm_ >= kCalm) contended_ = false;
  seconds_ = contended_ ? seconds_ + elapsed : 0;
  waited_ = contended_ ? waited_ + waited : 0;
}

double ContentionGauge::share() const {
  return seconds_ > 0 ? std::min(1.0, waited_ / seconds_ / static_cast<double>(threads_)) : 0;
}

void watch_contention() {
  const int64_t threads = at::get_num_threads();
  if (threads < 2) return;  // nobody to wait for
  static const Watcher watcher(threads);
}

}  // namespace polysketch
