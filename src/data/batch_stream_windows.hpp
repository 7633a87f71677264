// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "config/config.hpp"
#include "data/sample_order.hpp"
#include "data/segment_loader.hpp"

namespace polysketch {

/// The endless sequence of training windows (epoch after epoch) over a loader. Used by one thread.
class TrainingWindows {
 public:
  TrainingWindows(SegmentLoader& loader, const ShuffleConfig& shuffle, int64_t context,
                  uint64_t seed);

  /// Goes to a global sequence number through the token counts of the segments before it: reads no
  /// tokens, unless files on the way were never tokenised (then says so and tokenises them).
  void seek(int64_t sequence);

  /// Writes the T + 1 ids of a window. Numbers must not fall between calls of seek(). Throws
  /// UserError 65 when the corpus is smaller than one window.
  void read(int64_t sequence, int32_t* ids);

  /// Asks the loader for what will be needed next. Cheap; worth calling whenever there is time.
  void look_ahead();

  int64_t epoch() const { return epoch_; }                  ///< of the last window read
  int64_t windows_per_epoch() const { return per_epoch_; }  ///< 0 while unknown

 private:
  struct Place {
    SegmentWalk walk;
    int64_t pool = 0;
    int64_t begin = 0;  // token offset in the epoch
  };
  void start_epoch(int64_t epoch, int64_t first_sequence);
  void advance();
  void load_pool();
  void keep_tail();
  void end_epoch(int64_t tokens);
  std::optional<int64_t> pass_pool(Place& place);
  std::vector<Place> find_window(int64_t epoch, int64_t window, int64_t& windows);
  void copy(int64_t begin, int64_t count, int32_t* out) const;
  void ask_for(SegmentWalk walk, int64_t segments, bool only_unknown);

  SegmentLoader& loader_;
  const ShuffleConfig shuffle_;
  const int64_t context_;
  const uint64_t seed_;
  int64_t per_epoch_ = 0;
  bool said_tokenising_ = false;

  int64_t epoch_ = 0;
  int64_t epoch_first_ = 0;  // global sequence of the epoch's first window
  SegmentWalk walk_;         // behind the loaded pool
  int64_t next_pool_ = 0;
  std::optional<TokenPool> pool_;
  int64_t pool_begin_ = 0, pool_end_ = 0;  // tokens of the epoch
  std::optional<WindowOrder> order_;
  int64_t first_window_ = 0, last_window_ = 0;  // of the pool: [first, last)
  std::vector<int32_t> tail_;                   // tokens before the pool that its windows need
  int64_t tail_begin_ = 0;
};

}  // namespace polysketch
