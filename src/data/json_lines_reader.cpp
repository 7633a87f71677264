// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "data/json_member.hpp"
#include "data/record_reader.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

class JsonLinesReader final : public RecordReader {
 public:
  JsonLinesReader(std::unique_ptr<ByteSource> source, std::string field, const RecordLimits& limits)
      : bytes_(std::move(source)), field_(std::move(field)), limit_(limits.max_line_bytes) {}

  bool next(RawRecord& record) override {
    record.text.clear();
    record.error.clear();
    record.split = false;
    finish_long_line();
    do {
      record.offset = bytes_.offset();
      if (!read_line(record.error)) return false;
    } while (record.error.empty() && line_.find_first_not_of(" \t\r\n") == std::string::npos);
    record.index = index_++;
    if (record.error.empty()) parse(record);
    return true;
  }

 private:
  /// False at the end of the file. What is over the limit of a line is not kept, and is read only
  /// if somebody goes on to the next line.
  bool read_line(std::string& error) {
    line_.clear();
    uint64_t length = 0;
    bool any = false;
    while (true) {
      const std::string_view at_hand = bytes_.peek();
      if (at_hand.empty()) return any;
      any = true;
      const size_t newline = at_hand.find('\n');
      const std::string_view part = at_hand.substr(0, newline);
      length += part.size();
      if (length <= limit_) line_.append(part);
      bytes_.consume(newline == std::string_view::npos ? part.size() : newline + 1);
      if (length > limit_) {
        error = fmt::format("the line is longer than {} bytes (data.max_line_bytes)", limit_);
        line_ = std::string();
        in_long_line_ = newline == std::string_view::npos;
        return true;
      }
      if (newline != std::string_view::npos) return true;
    }
  }

  void finish_long_line() {
    while (in_long_line_) {
      const std::string_view at_hand = bytes_.peek();
      const size_t newline = at_hand.find('\n');
      in_long_line_ = newline == std::string_view::npos && !at_hand.empty();
      bytes_.consume(newline == std::string_view::npos ? at_hand.size() : newline + 1);
    }
  }

  void parse(RawRecord& record) {
    if (invalid_utf8_at(line_)) {
      record.error = "invalid UTF-8";
    } else {
      record.error = extract_string_member(line_, field_, record.text);
    }
  }

  BufferedBytes bytes_;
  std::string field_;
  uint64_t limit_;
  uint64_t index_ = 0;
  bool in_long_line_ = false;
  std::string line_;
};

}  // namespace

std::unique_ptr<RecordReader> read_json_lines(std::unique_ptr<ByteSource> source,
                                              const std::string& field,
                                              const RecordLimits& limits) {
  return std::make_unique<JsonLinesReader>(std::move(source), field, limits);
}

}  // namespace polysketch
