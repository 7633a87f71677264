// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// What a segment, a file or a split holds. Tokens include one EOS for each document.
struct SegmentCounts {
  int64_t tokens = 0;
  int64_t documents = 0;
  int64_t bytes = 0;    ///< of UTF-8 text after cleaning
  int64_t words = 0;    ///< split on white space
  int64_t unknown = 0;  ///< unknown pieces among the tokens
  int64_t skipped = 0;  ///< records that gave no document: empty, or bad under policy `skip`

  SegmentCounts& operator+=(const SegmentCounts& other);
  bool operator==(const SegmentCounts&) const = default;
};

/// One document of a segment.
struct SegmentDocument {
  uint64_t end =
      0;  ///< token offset in the segment behind its EOS; it begins where the one before ends
  uint64_t hash = 0;   ///< first 8 bytes of the SHA-256 of its text, to find duplicates
  uint32_t bytes = 0;  ///< of text
  uint32_t words = 0;
};
static_assert(sizeof(SegmentDocument) == 24);

/// What stands at the head of a segment's file; can be read without the tokens.
struct SegmentSummary {
  SegmentCounts counts;
  bool last = false;  ///< no document of the file stands behind this segment
};

/// Says which segment is meant, so that a file under a wrong name is not taken for another.
struct SegmentIdentity {
  uint64_t source = 0;  ///< hash of raw file, tokenizer, cleaning and format
  int64_t number = 0;   ///< of the segment in its file
};

/// A segment's file is damaged or is another one's. Never reaches the user: the segment is made
/// again.
class SegmentDamaged : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Ids of some consecutive documents of one file, EOS behind each. Immutable; may be read from
/// several threads.
///
/// File format, little endian: 128 bytes of header (magic, version, counts, CRC-32C of the body,
/// CRC-32C of the header), then the SegmentDocuments, then the ids as uint16 (vocabulary <= 65,536)
/// or uint32.
class Segment {
 public:
  /// Maps a file and checks all of it: size, both CRCs, identity, document ends, ids below the
  /// vocabulary. Throws SegmentDamaged with the reason; UserError 66, 77 or 74 when the file cannot
  /// be read.
  static std::shared_ptr<const Segment> map(const std::filesystem::path& path,
                                            const SegmentIdentity& identity, int32_t vocabulary);
  /// The same from memory, as SegmentBuilder::finish gave it.
  static std::shared_ptr<const Segment> parse(std::string content, const SegmentIdentity& identity,
                                              int32_t vocabulary);

  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment();

  const SegmentSummary& summary() const { return summary_; }
  const SegmentCounts& counts() const { return summary_.counts; }
  std::span<const SegmentDocument> documents() const { return documents_; }
  /// Copies ids [begin, begin + count).
  void copy(int64_t begin, int64_t count, int32_t* out) const;

 private:
  Segment() = default;
  void check(std::string_view content, const SegmentIdentity& identity, int32_t vocabulary);

  SegmentSummary summary_;
  std::span<const SegmentDocument> documents_;
  const uint16_t* ids16_ = nullptr;  // one of the two is set
  const uint32_t* ids32_ = nullptr;
  std::string memory_;
  void* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
};

/// The header of a segment's file, checked by its own CRC and the file's size; nothing if there is
/// no such file or it is damaged.
std::optional<SegmentSummary> read_segment_summary(const std::filesystem::path& path,
                                                   const SegmentIdentity& identity);

/// Gathers documents of one segment.
class SegmentBuilder {
 public:
  explicit SegmentBuilder(int32_t vocabulary);

  /// ids: of the whole document with its EOS. Throws UserError 65 for an id outside the vocabulary.
  void add(std::string_view text, std::span<const int32_t> ids, int32_t unknown);
  void add_skipped(int64_t records) { counts_.skipped += records; }
  const SegmentCounts& counts() const { return counts_; }
  /// The content of the segment's file. Call once.
  std::string finish(const SegmentIdentity& identity, bool last);

 private:
  int32_t vocabulary_;
  SegmentCounts counts_;
  std::vector<SegmentDocument> documents_;
  std::vector<int32_t> ids_;
};

}  // namespace polysketch
