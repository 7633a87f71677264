// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "data/segment_source.hpp"

namespace polysketch {

/// Loads segments on some threads, ahead of the one that needs them. Calls come from one thread;
/// results do not depend on timing.
class SegmentLoader {
 public:
  /// background: the threads give way to others of the machine (nice value 10), so that tokenising
  /// ahead does not slow a training step.
  SegmentLoader(std::shared_ptr<SegmentSource> source, int64_t threads, bool background);
  ~SegmentLoader();  ///< cancels the source and joins
  SegmentLoader(const SegmentLoader&) = delete;
  SegmentLoader& operator=(const SegmentLoader&) = delete;

  /// Starts loading if that has not been asked for yet.
  void want(const SegmentRef& ref);
  /// True if want() was called and get() not yet.
  bool asked(const SegmentRef& ref) const;
  /// What stands in a segment that get() would hand over at once.
  std::optional<SegmentSummary> loaded(const SegmentRef& ref) const;
  /// Waits for the segment and hands it over; null: the file ended before it. Throws what loading
  /// threw; Cancelled after cancel().
  std::shared_ptr<const Segment> get(const SegmentRef& ref);
  /// True when it is known that the file ends before this segment.
  bool ended(const SegmentRef& ref) const;
  /// Lets get() return from another thread. For good.
  void cancel();

  SegmentSource& source() { return *source_; }
  int64_t threads() const { return static_cast<int64_t>(workers_.size()); }

 private:
  struct Slot {
    bool done = false;
    std::shared_ptr<const Segment> segment;
    std::exception_ptr error;
  };
  void work(bool background);

  std::shared_ptr<SegmentSource> source_;
  mutable std::mutex mutex_;
  std::condition_variable queued_, finished_;
  std::deque<SegmentRef> queue_;
  std::map<SegmentRef, Slot> slots_;
  std::map<int64_t, int64_t> file_ends_;  // file -> number of its segments, where known
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

/// data.threads as a number: 0 means one less than the cores, at least one.
int64_t tokeniser_threads(int64_t configured);

}  // namespace polysketch
