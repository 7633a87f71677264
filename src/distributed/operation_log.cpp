// SPDX-License-Identifier: Apache-2.0
#include "distributed/operation_log.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "support/units.hpp"

namespace polysketch {
namespace {

double seconds_between(OperationRecord::Clock::time_point from,
                       OperationRecord::Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

int64_t OperationLog::begin(const std::string& operation, const std::string& what, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  while (records_.size() >= kKept && records_.front().ended) records_.pop_front();
  moved_ = OperationRecord::Clock::now();
  records_.push_back({next_, step_, operation, what, bytes, moved_, {}});
  return next_++;
}

void OperationLog::end(int64_t sequence) {
  const std::lock_guard lock(mutex_);
  moved_ = OperationRecord::Clock::now();
  const auto found = std::find_if(records_.begin(), records_.end(),
                                  [&](const OperationRecord& r) { return r.sequence == sequence; });
  if (found != records_.end() && !found->ended) found->ended = moved_;
}

void OperationLog::at_step(int64_t step) {
  const std::lock_guard lock(mutex_);
  step_ = step;
}

std::vector<OperationRecord> OperationLog::last() const {
  const std::lock_guard lock(mutex_);
  const size_t surplus = records_.size() > kKept ? records_.size() - kKept : 0;
  return {records_.begin() + static_cast<std::ptrdiff_t>(surplus), records_.end()};
}

std::optional<OperationRecord> OperationLog::oldest_open() const {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(records_.begin(), records_.end(),
                                  [](const OperationRecord& r) { return !r.ended; });
  return found == records_.end() ? std::nullopt : std::optional(*found);
}

double OperationLog::seconds_stuck() const {
  const std::lock_guard lock(mutex_);
  const bool open = std::any_of(records_.begin(), records_.end(),
                                [](const OperationRecord& r) { return !r.ended; });
  return open ? seconds_between(moved_, OperationRecord::Clock::now()) : 0;
}

std::string OperationLog::position() const {
  const std::lock_guard lock(mutex_);
  if (records_.empty()) return fmt::format("0 {} nothing yet", step_);
  const OperationRecord& newest = records_.back();
  return fmt::format("{} {} {} '{}'", newest.sequence, newest.step, newest.operation, newest.what);
}

std::string OperationLog::text() const {
  const auto now = OperationRecord::Clock::now();
  std::string lines;
  for (const OperationRecord& r : last()) {
    const std::string state =
        r.ended ? fmt::format("done in {:.3f} s", seconds_between(r.begun, *r.ended))
                : fmt::format("OPEN for {:.3f} s", seconds_between(r.begun, now));
    lines += fmt::format("#{} step {} {} '{}' {}: begun {:.3f} s ago, {}\n", r.sequence, r.step,
                         r.operation, r.what, format_bytes(r.bytes), seconds_between(r.begun, now),
                         state);
  }
  return lines;
}

}  // namespace polysketch
