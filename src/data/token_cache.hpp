// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "data/corpus.hpp"
#include "data/document.hpp"
#include "data/segment_source.hpp"
#include "data/tokenizer.hpp"

namespace polysketch {

/// Ids of the files of a split, kept on disk so that a text is tokenised once: by the first epoch
/// of the first run that reads it.
///
///   <cache>/<16 hex digits of tokenizer, cleaning, segment size, format>/<content hash of the raw
///   file>/seg-00000.tok …  index.json
///
/// A segment is a run of consecutive documents of one file: as many as it takes to reach a size
/// that starts at a sixteenth of `segment_bytes` of text and doubles with each segment of the file
/// up to `segment_bytes`. (The first segments are small so that training starts soon.) Files appear
/// whole or not at all; a process killed at any moment leaves whole segments behind, and the next
/// one goes on from them. Of several processes one at a time tokenises a file (flock), the others
/// take what it writes; one that holds the lock without getting anywhere is overtaken after a
/// minute, which is harmless since both would write the same bytes.
class TokenCache final : public SegmentSource {
 public:
  /// How text becomes ids; all functions thread-safe.
  struct Encoder {
    std::string sha256;  ///< identity
    int32_t vocabulary = 0, eos = 0, unknown = 0;
    /// appends the ids of a whole document, without EOS
    std::function<void(std::string_view, std::vector<int32_t>&)> encode;
  };
  /// A raw file.
  struct Input {
    std::string name;
    uint64_t bytes = 0;
    std::function<std::string()> content_hash;
    std::function<std::unique_ptr<DocumentReader>()> open;
  };
  struct Options {
    std::filesystem::path folder;  ///< the cache, shared by all corpora and tokenizers
    std::string processing_id;     ///< Corpus::processing_id
    int64_t segment_bytes = 4 << 20;
    double patience = 60;  ///< seconds to wait for another process that makes no progress
  };

  TokenCache(Options options, Encoder encoder, std::vector<Input> inputs);
  ~TokenCache() override;

  /// The cache of a split of a corpus. Opens nothing yet. Throws UserError 66 for a split without
  /// files.
  static std::shared_ptr<TokenCache> open(const DataConfig& config, const Corpus& corpus,
                                          Split split, const Tokenizer& tokenizer);

  int64_t files() const override;
  int32_t eos() const override;
  int32_t unknown() const override;
  std::shared_ptr<const Segment> load(const SegmentRef& ref) override;
  Known look_up(const SegmentRef& ref) override;
  void cancel() override;
  std::string file_name(int64_t file) const override;
  uint64_t file_bytes(int64_t file) const override;
  int64_t segment_bytes() const override;

  /// Segments and counts of a file if all of it is in the cache.
  struct FileSummary {
    int64_t segments = 0;
    SegmentCounts counts;
  };
  std::optional<FileSummary> file_summary(int64_t file);
  /// Tokens made (not read) by this object so far, and the bytes of text they came from.
  struct Work {
    int64_t segments = 0, tokens = 0, bytes = 0;
  };
  Work work() const;

  /// Checks every segment of a file that is in the cache, without making or deleting any.
  struct Verification {
    int64_t segments = 0, bytes = 0;
    bool complete = false;
    std::vector<std::string> damaged;  ///< `path: reason`
  };
  Verification verify(int64_t file);
  const std::filesystem::path& folder() const;  ///< of this tokenizer and cleaning

 private:
  class File;
  struct Shared;
  std::shared_ptr<Shared> shared_;
  std::vector<std::unique_ptr<File>> files_;
};

/// data.cache, or where it lies when that is empty: ${XDG_CACHE_HOME}/polysketch/tokens, else
/// ~/.cache/polysketch/tokens.
std::filesystem::path token_cache_folder(const DataConfig& config);

/// Text bytes at which segment `number` of a file ends.
int64_t segment_target(int64_t segment_bytes, int64_t number);

}  // namespace polysketch
