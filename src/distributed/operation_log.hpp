// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace polysketch {

/// One exchange with the other processes.
struct OperationRecord {
  using Clock = std::chrono::steady_clock;
  int64_t sequence = 0;  ///< counts all exchanges of this process; the same on every process
  int64_t step =
      0;  ///< optimiser step during which it was begun, counted from 1; 0: before the first
  std::string operation;  ///< "all-reduce"
  std::string what;       ///< "gradients 3"
  int64_t bytes = 0;      ///< of this process's part
  Clock::time_point begun;
  std::optional<Clock::time_point> ended;
};

/// The last exchanges of this process, so that when one never ends everybody can see who waited for
/// what. Thread-safe.
class OperationLog {
 public:
  static constexpr size_t kKept = 64;

  /// Returns the sequence number.
  int64_t begin(const std::string& operation, const std::string& what, int64_t bytes);
  void end(int64_t sequence);
  void at_step(int64_t step);

  std::vector<OperationRecord> last() const;  ///< oldest first
  std::optional<OperationRecord> oldest_open() const;
  /// Seconds since an exchange was last begun or ended while one is open; 0 if none is open.
  double seconds_stuck() const;
  /// "<sequence> <step> <operation 'what'>" of the newest exchange, for other processes to read.
  std::string position() const;
  /// One line an exchange.
  std::string text() const;

 private:
  mutable std::mutex mutex_;
  std::deque<OperationRecord> records_;  // the last kKept, and all that are open
  OperationRecord::Clock::time_point moved_ = OperationRecord::Clock::now();
  int64_t next_ = 1, step_ = 0;
};

}  // namespace polysketch
