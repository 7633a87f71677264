// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/token_cache.hpp"

namespace polysketch {

/// What all files of a cache share.
struct TokenCache::Shared {
  Options options;
  Encoder encoder;
  std::filesystem::path folder;
  std::atomic<bool> cancelled{false};
  std::atomic<int64_t> segments_made{0}, tokens_made{0}, bytes_made{0};
};

/// The segments of one raw file. Thread-safe: documents are read one after the other, segments are
/// tokenised side by side.
class TokenCache::File {
 public:
  File(std::shared_ptr<Shared> shared, Input input);
  ~File();

  std::shared_ptr<const Segment> load(int64_t number);
  Known look_up(int64_t number);
  std::optional<FileSummary> summary();
  Verification verify();
  const Input& input() const { return input_; }

 private:
  struct Reading;
  struct Text;
  class WorkingHere;

  void open();  // mutex_ held
  std::filesystem::path path(int64_t number) const;
  SegmentIdentity identity(int64_t number) const { return {source_, number}; }
  std::optional<SegmentSummary> known(int64_t number);  // mutex_ held
  bool past_end(int64_t number) const { return segments_ && number >= *segments_; }
  void note(int64_t number, const SegmentSummary& summary);  // mutex_ held
  void read_index();                                         // mutex_ held
  void write_index_if_complete();                            // mutex_ held

  std::shared_ptr<const Segment> map_or_discard(int64_t number);
  bool take_folder(int64_t number);  // false: the segment has appeared meanwhile
  void leave_folder();
  std::shared_ptr<const Segment> make(int64_t number);
  std::shared_ptr<const Segment> encode(int64_t number, Text& text);
  bool is_cached(int64_t number, const Text& text);  // mutex_ held
  void discard(int64_t number);                      // mutex_ held
  void remove_leftovers();                           // mutex_ held

  const std::shared_ptr<Shared> shared_;
  const Input input_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool opened_ = false;
  bool indexed_ = false;  // index.json is there
  std::filesystem::path folder_;
  uint64_t source_ = 0;
  std::optional<int64_t> segments_;              // of the file, once known
  std::map<int64_t, SegmentSummary> summaries_;  // of segments that are on disk
  std::set<int64_t> in_work_;                    // being tokenised by threads of this object
  std::unique_ptr<Reading> reading_;
  int lock_ = -1;           // file descriptor that holds the flock
  bool overtaken_ = false;  // the holder of the lock has been waited for in vain
  int lock_users_ = 0;      // threads working under it
};

}  // namespace polysketch
