// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "data/token_cache.hpp"
#include "data/tokenizer.hpp"

namespace polysketch {

/// How far prepare_tokens has come.
struct PrepareProgress {
  int64_t files = 0;  ///< done, of `total_files`
  int64_t total_files = 0;
  TokenCache::Work made;  ///< tokenised, not read from the cache
};

/// Tokenises what is missing of the first `files` files (0: all), on `threads` threads, also
/// several inside one file; segments that are there are checked and made again if damaged.
/// `progress` is called from several threads, one at a time. Throws UserError of the readers, 75
/// when a stop was requested (what is done is kept).
void prepare_tokens(TokenCache& cache, int64_t files, int64_t threads,
                    const std::function<void(const PrepareProgress&)>& progress = {});

/// What stands in a split.
struct SplitInspection {
  int64_t files = 0;
  uint64_t file_bytes = 0;  ///< raw, as they lie on the disk
  SegmentCounts counts;
  int64_t byte_pieces = 0;         ///< tokens that are byte-fallback pieces
  int64_t duplicates = 0;          ///< documents whose text stood there before
  int64_t longest = 0;             ///< tokens of the longest document
  std::vector<int64_t> histogram;  ///< how often each id occurs
};

/// Sums up prepared files: reads every segment once. Memory: 8 bytes a document.
SplitInspection inspect_tokens(TokenCache& cache, int64_t files, const Tokenizer& tokenizer);

}  // namespace polysketch
