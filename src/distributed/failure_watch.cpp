// SPDX-License-Identifier: Apache-2.0
#include "distributed/failure_watch.hpp"

#include <fmt/format.h>

#include <atomic>
#include <future>
#include <optional>
#include <set>
#include <sstream>

namespace polysketch {
namespace {

using namespace std::chrono_literals;

/// A beat on the board: "<count> <sequence> <step> <operation 'what'>".
struct Beat {
  int64_t count = -1, sequence = 0, step = 0;
  std::string doing;
};

Beat parse_beat(const std::string& text) {
  Beat beat;
  std::istringstream in(text);
  in >> beat.count >> beat.sequence >> beat.step;
  in.get();
  std::getline(in, beat.doing);
  return beat;
}

std::string beat_key(int64_t rank) { return fmt::format("beat/{}", rank); }
std::string end_key(int64_t rank) { return fmt::format("end/{}", rank); }
// the number of the process that ended first or last: that somebody did is what counts
constexpr const char* kEnded = "ended";

}  // namespace

struct FailureWatch::Shared {
  std::shared_ptr<NoticeBoard> board;
  std::shared_ptr<OperationLog> log;
  Options options;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false, through = false;  // through: the watch's thread has ended
  std::set<int64_t> seen_silent;           // who gave no sign of life when somebody looked around
  std::atomic<bool> board_answers{true};
  std::atomic<double> limit{0};
  std::atomic<int64_t> beats{0};

  const std::string& name(int64_t rank) const {
    return options.names.at(static_cast<size_t>(rank));
  }

  void put_beat() {
    board->put(beat_key(options.rank), fmt::format("{} {}", ++beats, log->position()));
  }

  std::string look_around() {
    std::map<int64_t, Beat> before, after;
    for (int64_t rank = 0; rank < options.world; ++rank)
      before[rank] = parse_beat(board->get(beat_key(rank)));
    // A sign of life takes up to a beat, and a loaded machine may be late with it.
    for (int beat = 0; beat < 3; ++beat) {
      std::this_thread::sleep_for(options.beat);
      // the watch's own thread may be the one that looks, and others may be looking, too
      put_beat();
    }
    for (int64_t rank = 0; rank < options.world; ++rank)
      after[rank] = parse_beat(board->get(beat_key(rank)));

    std::vector<std::string> ended, silent;
    int64_t last = -1;
    for (int64_t rank = 0; rank < options.world; ++rank) {
      if (rank == options.rank) continue;
      const std::string end = board->get(end_key(rank));
      const Beat& beat = after[rank];
      const std::string where = beat.step > 0
                                    ? fmt::format("in step {} at {}", beat.step, beat.doing)
                                    : "before the first step";
      if (!end.empty()) {
        // One that ends because others failed is not to blame.
        if (!end.starts_with("76 "))
          ended.push_back(fmt::format("{} ended with exit code {}", name(rank), end));
      } else if (beat.count == before[rank].count) {
        {
          const std::lock_guard lock(mutex);
          seen_silent.insert(rank);
        }
        silent.push_back(
            fmt::format("{} gives no sign of life; it was last seen {}", name(rank), where));
      } else if (last < 0 || beat.sequence < after[last].sequence) {
        last = rank;
      }
    }
    std::string text;
    for (const auto& list : {ended, silent}) {
      for (const std::string& one : list) text += (text.empty() ? "" : "; ") + one;
    }
    if (!text.empty()) return text;
    if (last < 0) return "the other processes have ended";
    const Beat& beat = after[last];
    return fmt::format("all processes are alive; furthest behind is {}, in step {} at {}",
                       name(last), beat.step, beat.doing);
  }
};

FailureWatch::FailureWatch(std::shared_ptr<NoticeBoard> board, std::shared_ptr<OperationLog> log,
                           Options options)
    : shared_(std::make_shared<Shared>()) {
  shared_->board = std::move(board);
  shared_->log = std::move(log);
  shared_->options = std::move(options);
  shared_->put_beat();
  thread_ = std::thread([shared = shared_] {
    watch(*shared);
    const std::lock_guard lock(shared->mutex);
    shared->through = true;
    shared->wake.notify_all();
  });
}

FailureWatch::~FailureWatch() { stop(); }

void FailureWatch::stop() {
  if (!thread_.joinable()) return;
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->wake.notify_all();
  // Behind a dead link the board may keep the thread for as long as TCP hopes.
  const bool through = shared_->wake.wait_for(lock, shared_->board_answers ? 5s : 0s,
                                              [&] { return shared_->through; });
  lock.unlock();
  if (through) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void FailureWatch::set_limit(double seconds) { shared_->limit = seconds; }

void FailureWatch::watch(Shared& s) {
  std::unique_lock lock(s.mutex);
  while (!s.wake.wait_for(lock, s.options.beat, [&] { return s.stopping; })) {
    lock.unlock();
    try {
      s.put_beat();
    } catch (const std::exception&) {
      // The store is gone; the next exchange will fail and say so.
    }
    std::string ended;
    try {
      ended = s.log->oldest_open() ? s.board->get(kEnded) : "";
    } catch (const std::exception&) {
    }
    lock.lock();
    // the board has kept this thread for so long that nobody waits for it any more
    if (s.stopping) return;
    lock.unlock();
    if (!ended.empty() && ended != std::to_string(s.options.rank) && s.options.on_stuck) {
      // It will not take part any more, and its connections may stay open for a while.
      const auto open = s.log->oldest_open();
      s.options.on_stuck(open ? fmt::format("{} '{}' cannot end", open->operation, open->what)
                              : "an exchange cannot end");
      lock.lock();
      return;
    }
    // c10d has its own limit, which ends most exchanges with an error; this one also sees those
    // that it does not.
    const double limit = s.limit;
    if (limit > 0 && s.log->seconds_stuck() > limit + 1 && s.options.on_stuck) {
      const auto open = s.log->oldest_open();
      s.options.on_stuck(open ? fmt::format("{} '{}' has not moved for {:.0f} s", open->operation,
                                            open->what, limit)
                              : "no progress");
      lock.lock();
      return;
    }
    lock.lock();
  }
}

std::string FailureWatch::diagnose(std::chrono::milliseconds patience) {
  // On a thread of its own: a store behind a dead link does not answer, and a socket may then block
  // for minutes.
  auto answer = std::make_shared<std::promise<std::string>>();
  std::future<std::string> future = answer->get_future();
  std::thread([shared = shared_, answer] {
    try {
      answer->set_value(shared->look_around());
    } catch (const std::exception&) {
      answer->set_value("");
    }
  }).detach();
  const std::string text =
      future.wait_for(patience) == std::future_status::ready ? future.get() : "";
  if (!text.empty()) return text;
  shared_->board_answers = false;
  return fmt::format(
      "{}, where the processes meet, does not answer: {} is gone or cannot be reached",
      shared_->options.board_name,
      shared_->options.rank == 0 || shared_->options.serves_board ? "this process or the launcher"
                                                                  : shared_->name(0));
}

void FailureWatch::announce_end(ExitCode code, const std::string& reason) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> future = done->get_future();
  const std::string text = fmt::format("{} ({})", static_cast<int>(code),
                                       reason.substr(0, reason.find('\n')).substr(0, 400));
  std::thread([shared = shared_, done, text] {
    try {
      const Options& o = shared->options;
      shared->board->put(end_key(o.rank), text);
      shared->board->put(kEnded, std::to_string(o.rank));
      if (!o.serves_board) {
        done->set_value();
        return;
      }
      std::map<int64_t, std::string> beats;
      for (int64_t rank = 0; rank < o.world; ++rank)
        beats[rank] = shared->board->get(beat_key(rank));
      const std::set<int64_t> silent = [&] {
        const std::lock_guard lock(shared->mutex);
        return shared->seen_silent;
      }();
      const auto until = std::chrono::steady_clock::now() + 4s;
      for (int round = 1; std::chrono::steady_clock::now() < until; ++round) {
        std::this_thread::sleep_for(100ms);
        bool all = true;
        for (int64_t rank = 0; rank < o.world; ++rank) {
          if (rank == o.rank || !shared->board->get(end_key(rank)).empty()) continue;
          // One that has given no sign of life is not waited for, nor, after three beats, one that
          // has not moved.
          if (silent.contains(rank)) continue;
          const bool moved = shared->board->get(beat_key(rank)) != beats[rank];
          if (moved || round * 100ms < 3 * o.beat) all = false;
        }
        if (all) break;
      }
    } catch (const std::exception&) {
      // Nobody is left to be told.
    }
    try {
      done->set_value();
    } catch (const std::future_error&) {
    }
  }).detach();
  // Whoever cannot be reached is not told: those that can see by themselves that this process is
  // gone.
  future.wait_for(shared_->board_answers ? 4500ms : 100ms);
}

}  // namespace polysketch
