// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "data/tokenizer_model.hpp"

namespace polysketch {

/// Where normalised text may be cut without changing its ids.
///
/// Between characters a and b no piece can lie across the cut when no piece holds "ab". Then every
/// segmentation has a boundary there: unigram's best path is the best path of both sides, and BPE's
/// merges on the two sides never meet. Runs of unknown characters become one id, so one of the two
/// characters must be a piece of its own.
class SafeCuts {
 public:
  explicit SafeCuts(const ModelSummary& model);

  /// False for model types whose segmentation is not made of pieces alone (word models): then
  /// nothing may be cut.
  bool possible() const { return possible_; }

  /// The first safe cut after `begin`, or the end of the text. Valid UTF-8 only.
  size_t next(std::string_view text, size_t begin) const;

 private:
  // code points below it, with U+2581 moved to kSpace, have a table of their own
  static constexpr uint32_t kDense = 256;
  static constexpr uint32_t kSpace = 0;  // NUL never occurs in a piece

  bool joined(uint32_t a, uint32_t b) const {
    return a < kDense && b < kDense ? dense_pairs_[a * kDense + b]
                                    : pairs_.contains(uint64_t{a} << 32 | b);
  }
  bool known(uint32_t c) const { return c < kDense ? dense_known_[c] : known_.contains(c); }

  bool possible_ = false;
  std::bitset<size_t{kDense} * kDense> dense_pairs_;
  std::bitset<kDense> dense_known_;
  std::unordered_set<uint64_t> pairs_;
  std::unordered_set<uint32_t> known_;
};

}  // namespace polysketch
