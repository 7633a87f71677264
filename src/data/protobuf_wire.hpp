// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace polysketch {

/// One field of a protocol buffer message in wire form.
struct WireField {
  uint32_t number = 0;
  uint32_t type = 0;       ///< 0 varint, 1 fixed 64, 2 bytes, 5 fixed 32
  uint64_t integer = 0;    ///< of types 0, 1, 5
  std::string_view bytes;  ///< of type 2; points into the message
  std::string_view whole;  ///< key and value as they stand, for copying
};

/// Walks the fields of a message without allocating: enough of protocol buffers to read
/// tf.train.Example and to look into a SentencePiece model before SentencePiece does. Groups are
/// refused (proto3 and SentencePiece have none).
class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  /// False at the end and at the first malformed byte; ok() tells them apart.
  bool next(WireField& field) {
    if (rest_.empty() || !ok_) return false;
    const char* const begin = rest_.data();
    uint64_t key = 0;
    ok_ = varint(key) && (key >> 3) >= 1 && (key >> 3) < (uint64_t{1} << 29);
    if (!ok_) return false;
    field.number = static_cast<uint32_t>(key >> 3);
    field.type = static_cast<uint32_t>(key & 7);
    field.bytes = {};
    switch (field.type) {
      case 0:
        ok_ = varint(field.integer);
        break;
      case 1:
        ok_ = fixed(8, field.integer);
        break;
      case 5:
        ok_ = fixed(4, field.integer);
        break;
      case 2: {
        uint64_t size = 0;
        ok_ = varint(size) && size <= rest_.size();
        if (ok_) {
          field.bytes = rest_.substr(0, size);
          rest_.remove_prefix(size);
        }
        break;
      }
      default:
        ok_ = false;
    }
    field.whole = std::string_view(begin, static_cast<size_t>(rest_.data() - begin));
    return ok_;
  }
  bool ok() const { return ok_; }

 private:
  bool varint(uint64_t& value) {
    value = 0;
    for (uint32_t shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool fixed(size_t size, uint64_t& value) {
    if (rest_.size() < size) return false;
    value = 0;
    std::memcpy(&value, rest_.data(), size);  // little endian, like every machine this runs on
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  bool ok_ = true;
};

inline float wire_float(const WireField& field) {
  const auto bits = static_cast<uint32_t>(field.integer);
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace polysketch
