// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "data/protobuf_wire.hpp"
#include "data/record_reader.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

constexpr uint32_t kExampleFeatures = 1;  // Example.features
constexpr uint32_t kFeaturesFeature = 1;  // Features.feature: map<string, Feature>
constexpr uint32_t kMapKey = 1, kMapValue = 2;
constexpr uint32_t kFeatureBytesList = 1;  // Feature.bytes_list; 2 float_list, 3 int64_list
constexpr uint32_t kSequenceLists = 2;  // SequenceExample.feature_lists; an Example has no field 2
constexpr uint32_t kBytesListValue = 1;

/// The text, or the reason why there is none.
struct Extracted {
  std::optional<std::string_view> text;
  std::string error;
  bool absent = false;  ///< the feature is there, without a value
};

Extracted bytes_value(std::string_view feature, const std::string& name) {
  WireReader kinds(feature);
  WireField kind;
  std::optional<std::string_view> text;
  while (kinds.next(kind)) {
    if (kind.number != kFeatureBytesList || kind.type != 2)
      return {{}, fmt::format("feature '{}' is not a byte string", name)};
    WireReader values(kind.bytes);
    WireField value;
    while (values.next(value)) {
      if (value.number != kBytesListValue || value.type != 2) continue;
      if (text) return {{}, fmt::format("feature '{}' has several values", name)};
      text = value.bytes;
    }
    if (!values.ok()) return {{}, "not a tf.train.Example"};
  }
  if (!kinds.ok()) return {{}, "not a tf.train.Example"};
  if (!text) return {{}, fmt::format("feature '{}' has no value", name), true};
  return {text, ""};
}

/// Entries of the map come in any order; the last one of a name wins, as in every protocol buffer
/// reader.
Extracted find_feature(std::string_view example, const std::string& name) {
  std::optional<std::string_view> found;
  bool ok = true, sequence = false;
  WireReader top(example);
  WireField part;
  while (top.next(part)) {
    sequence = sequence || part.number == kSequenceLists;
    if (part.number != kExampleFeatures || part.type != 2) continue;
    WireReader features(part.bytes);
    WireField entry;
    while (features.next(entry)) {
      if (entry.number != kFeaturesFeature || entry.type != 2) continue;
      WireReader pair(entry.bytes);
      WireField member;
      std::string_view key, value;
      while (pair.next(member)) {
        if (member.number == kMapKey) key = member.bytes;
        if (member.number == kMapValue) value = member.bytes;
      }
      ok = ok && pair.ok();
      if (key == name) found = value;
    }
    ok = ok && features.ok();
  }
  if (!ok || !top.ok()) return {{}, "not a tf.train.Example"};
  if (!found && sequence)
    return {{}, "a tf.train.SequenceExample, where only tf.train.Example is read"};
  if (!found) return {{}, fmt::format("no feature '{}'", name)};
  return bytes_value(*found, name);
}

class TfRecordReader final : public RecordReader {
 public:
  TfRecordReader(std::unique_ptr<ByteSource> source, std::string name, std::string field,
                 const RecordLimits& limits)
      : bytes_(std::move(source)),
        name_(std::move(name)),
        field_(std::move(field)),
        limit_(limits.max_line_bytes) {}

  bool next(RawRecord& record) override {
    record.text.clear();
    record.error.clear();
    record.absent = false;
    record.split = false;
    record.offset = bytes_.offset();
    record.index = index_;
    std::array<char, 12> header{};
    const size_t got = bytes_.read(header.data(), header.size());
    if (got == 0) return false;
    if (got < header.size()) fail(record.offset, "the file is truncated inside a record's header");
    uint64_t length = 0;
    std::memcpy(&length, header.data(), 8);
    if (masked_crc32c(header.data(), 8) != load_crc(header.data() + 8)) {
      fail(record.offset, "the CRC of a record's length is wrong: not a TFRecord file, or damaged");
    }
    if (length > limit_) {
      if (bytes_.skip(length) < length || bytes_.skip(4) < 4)
        fail(record.offset, "the file is truncated inside a record");
      ++index_;
      record.error =
          fmt::format("the record is longer than {} bytes (data.max_line_bytes)", limit_);
      return true;
    }
    payload_.resize(length + 4);
    if (bytes_.read(payload_.data(), payload_.size()) < payload_.size())
      fail(record.offset, "the file is truncated inside a record");
    ++index_;
    if (masked_crc32c(payload_.data(), length) != load_crc(payload_.data() + length)) {
      record.error = "the CRC of the record's payload is wrong";
      return true;
    }
    const Extracted found = find_feature(std::string_view(payload_).substr(0, length), field_);
    if (found.text) {
      record.text.assign(*found.text);
    } else {
      record.error = found.error;
      record.absent = found.absent;
    }
    return true;
  }

 private:
  static uint32_t load_crc(const char* at) {
    uint32_t value = 0;
    std::memcpy(&value, at, 4);
    return value;
  }
  [[noreturn]] void fail(uint64_t offset, const std::string& cause) const {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: record {}, byte {}: {}: download the file again", name_,
                                index_, offset, cause));
  }

  BufferedBytes bytes_;
  std::string name_, field_;
  uint64_t limit_;
  uint64_t index_ = 0;
  std::string payload_;
};

}  // namespace

std::unique_ptr<RecordReader> read_tfrecord(std::unique_ptr<ByteSource> source,
                                            const std::string& name, const std::string& field,
                                            const RecordLimits& limits) {
  return std::make_unique<TfRecordReader>(std::move(source), name, field, limits);
}

}  // namespace polysketch
