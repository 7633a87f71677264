// SPDX-License-Identifier: Apache-2.0
#include "data/sample_order.hpp"

#include <algorithm>

#include "data/token_cache.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

uint64_t pool_stream(int64_t epoch, int64_t pool) {
  return static_cast<uint64_t>(epoch) << 32 | static_cast<uint64_t>(pool);
}

constexpr int64_t kFewest = 16;         // documents of a pool; segments while files are opened
constexpr int64_t kManySegments = 128;  // of the first pool: each is a file to be written
constexpr int64_t kMostSegments = 512;  // of any pool: each is a file that is mapped

using Wide = __int128;  // of two sizes multiplied

constexpr int64_t kLargest = 1 << 20;  // of pools, beyond what shuffle.segments may be

/// 1, 2, 4, … up to `most`.
int64_t doubled(int64_t times, int64_t most) {
  return times < 32 ? std::min(most, int64_t{1} << times) : most;
}

}  // namespace

SegmentWalk::SegmentWalk(const OrderRules& rules, int64_t epoch,
                         std::span<const uint64_t> file_bytes)
    : files_(std::max<uint64_t>(file_bytes.size(), 1), rules.seed, RandomPurpose::file_order,
             static_cast<uint64_t>(epoch)),
      file_bytes_(file_bytes),
      shuffled_(rules.shuffle.enabled),
      by_share_(rules.mixes()),
      sixteenth_(segment_target(rules.segment_bytes, 0)),
      group_size_(shuffled_ ? rules.shuffle.files : 1) {
  const auto files = static_cast<int64_t>(file_bytes.size());
  groups_ = by_share_ ? std::max<int64_t>(files / group_size_, 1)
                      : (files + group_size_ - 1) / group_size_;
  fill();
}

bool SegmentWalk::OpenFile::operator<(const OpenFile& other) const {
  const auto share = Wide{taken} * other.bytes, other_share = Wide{other.taken} * bytes;
  return share != other_share ? share > other_share : place > other.place;
}

/// Starts the next group when all files of this one have ended.
void SegmentWalk::fill() {
  if (!group_.empty() || next_group_ == groups_) return;
  const auto files = static_cast<int64_t>(file_bytes_.size());
  const auto first_of = [&](int64_t group) {
    return by_share_ ? group * files / groups_ : std::min(group * group_size_, files);
  };
  const int64_t first = first_of(next_group_), end = first_of(++next_group_);
  for (int64_t i = first; i < end; ++i) {
    const int64_t file = shuffled_ ? static_cast<int64_t>(files_(static_cast<uint64_t>(i))) : i;
    const auto bytes = static_cast<int64_t>(file_bytes_[static_cast<size_t>(file)]);
    group_.push_back({0, by_share_ ? std::max<int64_t>(bytes, 1) : 1, i, {file, 0}});
    group_bytes_ += group_.back().bytes;
  }
  // Nothing was taken yet and places rise: a heap.
}

std::optional<SegmentRef> SegmentWalk::peek() const {
  if (group_.empty()) return std::nullopt;
  return group_.front().next;
}

void SegmentWalk::take(bool last) {
  if (last) return drop();
  std::pop_heap(group_.begin(), group_.end());
  OpenFile& file = group_.back();
  const int64_t text = by_share_ ? segment_target(16, file.next.segment) : 1;
  ++file.next.segment;
  file.taken += text;
  group_taken_ += text;
  std::push_heap(group_.begin(), group_.end());
}

void SegmentWalk::drop() {
  std::pop_heap(group_.begin(), group_.end());
  group_taken_ -= group_.back().taken;
  group_bytes_ -= group_.back().bytes;
  group_.pop_back();
  fill();
}

int64_t SegmentWalk::bytes_ahead() const {
  if (group_.empty()) return 0;
  const OpenFile& least = group_.front();
  const Wide ahead = Wide{group_taken_} * least.bytes - Wide{least.taken} * group_bytes_;
  return static_cast<int64_t>(ahead / least.bytes) * sixteenth_;
}

bool pool_is_complete(const OrderRules& rules, int64_t epoch, int64_t pool,
                      const PoolContent& content, const SegmentWalk& walk) {
  const int64_t most = rules.shuffle.segments;
  if (!rules.mixes()) return content.segments >= doubled(pool, most);
  const int64_t times = epoch == 0 ? doubled(pool, kLargest) : kLargest;
  if (content.segments >= std::min(kManySegments * times, std::max(kMostSegments, most)))
    return true;
  const bool enough =
      content.counts.documents >= kFewest && (content.segments >= kFewest || !walk.opens_files());
  const int64_t half = rules.segment_bytes / 2, bytes = content.counts.bytes;
  const int64_t wanted = half * std::min(times, most);
  const int64_t at_most = std::min(2 * wanted + half, half * most * 3 / 2);
  return enough && bytes >= wanted && (walk.bytes_ahead() <= bytes / 8 || bytes >= at_most);
}

int64_t windows_kept_back(const OrderRules& rules, int64_t windows, const SegmentWalk& walk) {
  return rules.mixes() && walk.peek() ? windows / 2 : 0;
}

TokenPool::TokenPool(const OrderRules& rules, int64_t epoch, int64_t pool,
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
  const IndexPermutation permutation(documents.size(), rules.seed, RandomPurpose::document_order,
                                     pool_stream(epoch, pool));
  pieces_.reserve(documents.size());
  ends_.reserve(documents.size());
  int64_t end = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    const auto& document = documents[rules.shuffle.enabled ? permutation(i) : i];
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

WindowOrder::WindowOrder(const OrderRules& rules, int64_t epoch, int64_t pool, int64_t count) {
  if (rules.shuffle.enabled && count > 0) {
    permutation_.emplace(static_cast<uint64_t>(count), rules.seed, RandomPurpose::window_order,
                         pool_stream(epoch, pool));
  }
}

int64_t WindowOrder::operator()(int64_t position) const {
  return permutation_ ? static_cast<int64_t>((*permutation_)(static_cast<uint64_t>(position)))
                      : position;
}

}  // namespace polysketch
