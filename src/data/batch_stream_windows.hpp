// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "config/config.hpp"
#include "data/sample_order.hpp"
#include "data/segment_loader.hpp"

namespace polysketch {

/// The endless sequence of training windows (epoch after epoch) over a loader. Used by one thread.
class TrainingWindows {
 public:
  /// version: of the order, kOrderVersion1 to kNewestOrder.
  TrainingWindows(SegmentLoader& loader, const ShuffleConfig& shuffle, int64_t context,
                  uint64_t seed, int version);
  TrainingWindows(const TrainingWindows&) = delete;
  TrainingWindows& operator=(const TrainingWindows&) = delete;

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
  /// Before the turn of a pool. Windows and tokens are counted from the start of the epoch.
  struct Place {
    SegmentWalk walk;
    int64_t pool = 0;
    int64_t begin = 0;      // token at which the pool begins
    int64_t given = 0;      // windows of the turns before
    int64_t kept_back = 0;  // windows of the pool before, for this turn
  };
  /// A pool in memory.
  struct Loaded {
    TokenPool tokens;
    int64_t begin = 0;         // token of the epoch
    int64_t first_window = 0;  // of the epoch, of those that end in the pool
  };
  void start_epoch(int64_t epoch, int64_t first_sequence);
  void stand_before(const Place& place);
  void advance();
  void let_go();
  bool load_pool();
  void end_epoch(int64_t tokens);
  int64_t window_at(int64_t index) const;
  int64_t pass_windows(Place& place, int64_t tokens) const;
  bool pass_pool(Place& place, int64_t epoch);
  std::optional<Place> find_window(int64_t epoch, int64_t window);
  void copy(int64_t begin, int64_t count, int32_t* out) const;
  bool ask_for(SegmentWalk walk, PoolContent content, int64_t pool);
  void ask_for_unknown(SegmentWalk walk);

  SegmentLoader& loader_;
  const std::vector<uint64_t> file_bytes_;
  const OrderRules rules_;
  const int64_t context_;
  int64_t per_epoch_ = 0;
  bool said_tokenising_ = false;

  int64_t epoch_ = 0;
  int64_t epoch_first_ = 0;   // global sequence of the epoch's first window
  Place next_;                // the turn after the one under way
  bool asked_ahead_ = false;  // for all of its pool

  int64_t first_ = 0;  // window of the epoch with which the turn begins; ends at next_.given
  std::optional<WindowOrder> order_;
  int64_t own_ = 0;            // of the turn's windows those of its own pool
  std::deque<Loaded> pools_;   // those the turn takes windows from: at most two
  std::vector<int32_t> tail_;  // tokens before the pools that their windows need
  int64_t tail_begin_ = 0;
};

}  // namespace polysketch
