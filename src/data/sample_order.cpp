// SPDX-License-Identifier: Apache-2.0
#include "data/sample_order.hpp"

#include <algorithm>

#include "support/error.hpp"

namespace polysketch {
namespace {

uint64_t pool_stream(int64_t epoch, int64_t pool) {
  return static_cast<uint64_t>(epoch) << 32 | static_cast<uint64_t>(pool);
}

}  // namespace

int64_t pool_segments(const ShuffleConfig& config, int64_t pool) {
  return pool < 32 ? std::min(config.segments, int64_t{1} << pool) : config.segments;
}

SegmentWalk::SegmentWalk(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t files)
    : files_(static_cast<uint64_t>(std::max<int64_t>(files, 1)), seed, RandomPurpose::file_order,
             static_cast<uint64_t>(epoch)),
      shuffled_(config.enabled),
      group_size_(config.enabled ? config.files : 1),
      file_count_(files) {
  fill();
}

/// Starts the next group when all files of this one have ended.
void SegmentWalk::fill() {
  if (!group_.empty()) return;
  turn_ = 0;
  for (; next_file_ < file_count_ && static_cast<int64_t>(group_.size()) < group_size_;
       ++next_file_) {
    const int64_t file =
        shuffled_ ? static_cast<int64_t>(files_(static_cast<uint64_t>(next_file_))) : next_file_;
    group_.push_back({file, 0});
  }
}

std::optional<SegmentRef> SegmentWalk::peek() const {
  if (group_.empty()) return std::nullopt;
  return group_[turn_];
}

void SegmentWalk::take() {
  ++group_[turn_].segment;
  turn_ = (turn_ + 1) % group_.size();
}

void SegmentWalk::drop() {
  group_.erase(group_.begin() + static_cast<std::ptrdiff_t>(turn_));
  if (turn_ == group_.size()) turn_ = 0;
  fill();
}

TokenPool::TokenPool(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t pool,
                     std::vector<std::shared_ptr<const Segment>> segments)
    : segments_(std::move(segments)) {
  struct Extent {
    Piece piece;
    int64_t tokens;
  };
  std::vector<Extent> documents;
  for (size_t i = 0; i < segments_.size(); ++i) {
    int64_t begin = 0;
    for (const auto& document : segments_[i]->documents()) {
      const auto end = static_cast<int64_t>(document.end);
      documents.push_back({{static_cast<uint32_t>(i), begin}, end - begin});
      begin = end;
    }
  }
  if (documents.empty()) return;
  const IndexPermutation permutation(documents.size(), seed, RandomPurpose::document_order,
                                     pool_stream(epoch, pool));
  pieces_.reserve(documents.size());
  ends_.reserve(documents.size());
  int64_t end = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    const auto& document = documents[config.enabled ? permutation(i) : i];
    end += document.tokens;
    pieces_.push_back(document.piece);
    ends_.push_back(end);
  }
}

void TokenPool::copy(int64_t begin, int64_t count, int32_t* out) const {
  require(begin >= 0 && begin + count <= tokens(), "range outside the pool");
  auto i = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin());
  for (; count > 0; ++i) {
    const int64_t piece_begin = i == 0 ? 0 : ends_[i - 1];
    const int64_t n = std::min(count, ends_[i] - begin);
    segments_[pieces_[i].segment]->copy(pieces_[i].begin + (begin - piece_begin), n, out);
    out += n;
    begin += n;
    count -= n;
  }
}

WindowOrder::WindowOrder(const ShuffleConfig& config, uint64_t seed, int64_t epoch, int64_t pool,
                         int64_t count) {
  if (config.enabled && count > 0) {
    permutation_.emplace(static_cast<uint64_t>(count), seed, RandomPurpose::window_order,
                         pool_stream(epoch, pool));
  }
}

int64_t WindowOrder::operator()(int64_t position) const {
  return permutation_ ? static_cast<int64_t>((*permutation_)(static_cast<uint64_t>(position)))
                      : position;
}

}  // namespace polysketch
