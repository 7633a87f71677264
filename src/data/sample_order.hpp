// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "config/config.hpp"
#include "data/segment_source.hpp"
#include "support/philox.hpp"

namespace polysketch {

// The order of training windows, a pure function of (seed, epoch, position):
//
// 1. An epoch permutes the files and takes them in groups of shuffle.files; inside a group the
//    segments come in turn, one of each file (a file that has ended drops out). That is the epoch's
//    sequence of segments.
// 2. Consecutive segments form pools of 1, 2, 4, … up to shuffle.segments (small first, so that
//    training starts soon). The documents of a pool are permuted; put one after the other they are
//    the epoch's tokens 0 … N-1.
// 3. Window w holds the tokens [w*T, w*T + T]: T inputs and T targets. It belongs to the pool in
//    which its last token lies, so a pool needs nothing of the next one. The windows of a pool are
//    permuted. What is left at the end of an epoch, fewer than T + 1 tokens, is dropped.
//
// Without shuffling everything comes as it lies in the files, sorted by name.

/// Windows whose last token lies among the first `tokens` tokens of an epoch.
constexpr int64_t windows_within(int64_t tokens, int64_t context) {
  return tokens > 0 ? (tokens - 1) / context : 0;
}

/// Number of segments of the `pool`-th pool of an epoch.
int64_t pool_segments(const ShuffleConfig& config, int64_t pool);

/// Walks over the segments of one epoch. Which files have ended must be told, since it shows only
/// when they are read. Cheap to copy.
class SegmentWalk {
 public:
  SegmentWalk(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t files);
  /// The next candidate; nothing at the end of the epoch. Answer it with take() or drop().
  std::optional<SegmentRef> peek() const;
  void take();  ///< the segment exists: on to the next file of the group
  void drop();  ///< the file ends before it: its turn goes to the next file
 private:
  void fill();
  IndexPermutation files_;
  bool shuffled_;
  int64_t group_size_;
  int64_t file_count_;
  int64_t next_file_ = 0;          // position in the epoch's permutation
  std::vector<SegmentRef> group_;  // next segment of each file that has not ended
  size_t turn_ = 0;
};

/// The documents of a pool in their permuted order, as one run of tokens.
class TokenPool {
 public:
  TokenPool(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t pool,
            std::vector<std::shared_ptr<const Segment>> segments);
  int64_t tokens() const { return ends_.empty() ? 0 : ends_.back(); }
  /// Copies tokens [begin, begin + count) of the run.
  void copy(int64_t begin, int64_t count, int32_t* out) const;

 private:
  struct Piece {
    uint32_t segment;
    int64_t begin;  // in the segment
  };
  std::vector<std::shared_ptr<const Segment>> segments_;
  std::vector<Piece> pieces_;  // in permuted order
  std::vector<int64_t> ends_;  // token offset in the run behind each piece
};

/// Which window of a pool stands at each position: `count` windows.
class WindowOrder {
 public:
  WindowOrder(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t pool,
              int64_t count);
  int64_t operator()(int64_t position) const;

 private:
  std::optional<IndexPermutation> permutation_;
};

}  // namespace polysketch
