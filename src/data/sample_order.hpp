// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "config/config.hpp"
#include "data/segment_source.hpp"
#include "support/philox.hpp"

namespace polysketch {

// The order of training windows, a pure function of (seed, epoch, position) and the files:
//
// 1. An epoch permutes the files and takes them in groups. Inside a group the files advance side by
//    side, one segment at a time. That is the epoch's sequence of segments.
// 2. Consecutive segments form pools. The documents of a pool are permuted; put one after the other
//    they are the epoch's tokens 0 … N-1.
// 3. Window w holds the tokens [w*T, w*T + T]: T inputs and T targets. It belongs to the pool in
//    which its last token lies, so a pool needs nothing of the next one. What is left at the end of
//    an epoch, fewer than T + 1 tokens, is dropped.
// 4. The pools have turns, in which windows are given out in a permuted order. In version 2 every
//    second window of a pool is kept back and given out in the turn of the next one.
//
// Without shuffling everything comes as it lies in the files, sorted by name, in any version.

/// Versions of the order. A run keeps the one it began with.
inline constexpr int kOrderVersion1 = 1;  ///< of checkpoints that name none
inline constexpr int kNewestOrder = 2;

/// What the order is a function of, besides the files.
struct OrderRules {
  ShuffleConfig shuffle;
  uint64_t seed = 1;
  int version = kNewestOrder;
  int64_t segment_bytes = 4 << 20;  ///< SegmentSource::segment_bytes

  bool mixes() const { return shuffle.enabled && version > kOrderVersion1; }
};

/// Windows whose last token lies among the first `tokens` tokens of an epoch.
constexpr int64_t windows_within(int64_t tokens, int64_t context) {
  return tokens > 0 ? (tokens - 1) / context : 0;
}

/// Walks over the segments of one epoch. Which files have ended must be told, since it shows only
/// when they are read. Cheap to copy.
///
/// Version 1: groups of shuffle.files files, the last one smaller; one segment of each file in
/// turn, so that at the end of a group only its longest files are left.
/// Version 2: as many groups, as equal as possible, as give each at least shuffle.files files (all
/// in one if there are fewer); the next segment is that of the file of which the smallest share was
/// taken, so that all files of a group end together.
class SegmentWalk {
 public:
  /// file_bytes: raw sizes of all files; must outlive the walk.
  SegmentWalk(const OrderRules& rules, int64_t epoch, std::span<const uint64_t> file_bytes);
  /// The next candidate; nothing at the end of the epoch. Answer it with take() or drop(). It may
  /// fail to exist only if it is the first of its file or take() was not told of the last one.
  std::optional<SegmentRef> peek() const;
  void take(bool last);  ///< the segment exists; last: SegmentSummary::last
  void drop();           ///< the file ends before it
  /// Some file of the group has not been begun.
  bool opens_files() const { return !group_.empty() && group_.front().next.segment == 0; }
  /// By how many bytes of text, about, the files of the group are ahead of the one whose turn it
  /// is: 0 when all have advanced alike.
  int64_t bytes_ahead() const;

 private:
  struct OpenFile {
    int64_t taken = 0;  // of its text, in sixteenths of a full segment; in version 1, in segments
    int64_t bytes = 1;  // its size; in version 1 all are taken for equally long
    int64_t place = 0;
    SegmentRef next;
    bool operator<(const OpenFile& other) const;  // of a heap: what comes first is the largest
  };
  void fill();

  IndexPermutation files_;
  std::span<const uint64_t> file_bytes_;
  bool shuffled_, by_share_;
  int64_t sixteenth_;  // of a full segment
  int64_t groups_ = 0, group_size_ = 0, next_group_ = 0;
  std::vector<OpenFile> group_;  // a heap: the file whose turn it is lies in front
  int64_t group_taken_ = 0, group_bytes_ = 0;
};

/// What a pool holds so far.
struct PoolContent {
  int64_t segments = 0;
  SegmentCounts counts;

  void add(const SegmentCounts& segment) {
    ++segments;
    counts += segment;
  }
};

/// True when a pool of this content is complete, where `walk` stands behind it.
///
/// Version 1: 1, 2, 4, … up to shuffle.segments segments.
/// Version 2: the text wanted is half a full segment (2 MiB) for the first pool of the first epoch,
/// twice as much for each that follows, up to shuffle.segments halves; later epochs, whose tokens
/// are in the cache, want that much at once. A pool is complete when it holds that text, 16
/// documents, and 16 segments if files of the group have not been begun; and what some files of the
/// group are ahead of others is no more than an eighth of it. It waits for the latter no longer
/// than until it holds twice the text wanted and half a segment, or one and a half times the most
/// that is ever wanted. Tiny files: at 128 segments, twice as many for each pool that follows, up
/// to 512 (or shuffle.segments, if that is larger), it is complete in any case.
bool pool_is_complete(const OrderRules& rules, int64_t epoch, int64_t pool,
                      const PoolContent& content, const SegmentWalk& walk);

/// How many of the `windows` windows of a pool are kept back for the turn of the next one; `walk`
/// stands behind the pool.
int64_t windows_kept_back(const OrderRules& rules, int64_t windows, const SegmentWalk& walk);

/// The documents of a pool in their permuted order, as one run of tokens.
class TokenPool {
 public:
  TokenPool(const OrderRules& rules, int64_t epoch, int64_t pool,
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

/// Which of the `count` windows of a turn stands at each position.
class WindowOrder {
 public:
  WindowOrder(const OrderRules& rules, int64_t epoch, int64_t pool, int64_t count);
  int64_t operator()(int64_t position) const;

 private:
  std::optional<IndexPermutation> permutation_;
};

}  // namespace polysketch
