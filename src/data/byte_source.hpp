// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "config/config.hpp"

namespace polysketch {

/// Bytes in order, from a disk, an object store or a decompressor.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Up to `size` bytes; 0 only at the end. Throws UserError 74 (reading failed) or 65 (compressed
  /// data damaged).
  virtual size_t read(void* data, size_t size) = 0;
};

/// Decompresses gzip, all members one after the other, with constant memory. zlib checks CRC-32 and
/// length of each member. Throws UserError 65 under both policies for a truncated or damaged
/// stream, since data is lost. Zero bytes behind a member are padding and passed over; other bytes
/// after the last member are an error under OnError::error and a warning under OnError::skip.
/// `name` is for messages.
std::unique_ptr<ByteSource> gunzip(std::unique_ptr<ByteSource> compressed, const std::string& name,
                                   OnError policy);

/// A buffer over a ByteSource: what the record readers parse from.
class BufferedBytes {
 public:
  explicit BufferedBytes(std::unique_ptr<ByteSource> source, size_t capacity = size_t{1} << 18)
      : source_(std::move(source)), buffer_(capacity, '\0') {}

  /// Bytes at hand, refilled when none is left; empty at the end.
  std::string_view peek() {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = source_->read(buffer_.data(), buffer_.size());
    }
    return std::string_view(buffer_).substr(begin_, end_ - begin_);
  }
  /// The next `size` bytes (at most the capacity), or fewer at the end; they are not consumed.
  std::string_view head(size_t size);
  void consume(size_t size) {
    begin_ += size;
    offset_ += size;
  }
  /// Exactly `size` bytes into `data`, or fewer at the end; returns how many.
  size_t read(char* data, size_t size);
  /// Passes over `size` bytes; returns how many there were.
  uint64_t skip(uint64_t size);
  uint64_t offset() const { return offset_; }  ///< of the next byte, decompressed

 private:
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace polysketch
