// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/segment.hpp"

namespace polysketch {

/// Names a segment: the `segment`-th of the `file`-th file of a split.
struct SegmentRef {
  int64_t file = 0;
  int64_t segment = 0;
  auto operator<=>(const SegmentRef&) const = default;
};

/// Where segments come from. All calls are thread-safe.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;
  virtual int64_t files() const = 0;
  virtual int32_t eos() const = 0;
  virtual int32_t unknown() const = 0;
  virtual uint64_t file_bytes(int64_t file) const = 0;  ///< of the raw file
  virtual int64_t segment_bytes() const = 0;            ///< text of a full segment

  /// The segment, tokenised now if it is not there yet; null when the file has ended before it. May
  /// take seconds. Throws the reader's UserError; Cancelled after cancel().
  virtual std::shared_ptr<const Segment> load(const SegmentRef& ref) = 0;

  /// What is known without tokenising or reading tokens.
  struct Known {
    bool known = false;
    /// nothing: the file ends before this segment (if known)
    std::optional<SegmentSummary> summary;
  };
  virtual Known look_up(const SegmentRef& ref) = 0;

  /// Makes calls of load() that wait or tokenise return soon with Cancelled. For the end of the
  /// program or of a stream.
  virtual void cancel() = 0;

  /// For messages: the name of a file.
  virtual std::string file_name(int64_t file) const = 0;
};

inline std::vector<uint64_t> sizes_of_files(const SegmentSource& source) {
  std::vector<uint64_t> bytes;
  for (int64_t file = 0; file < source.files(); ++file) bytes.push_back(source.file_bytes(file));
  return bytes;
}

/// A call was given up because of cancel(). Never reaches the user.
class Cancelled : public std::exception {
 public:
  const char* what() const noexcept override { return "cancelled"; }
};

}  // namespace polysketch
