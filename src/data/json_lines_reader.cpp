// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "data/json_member.hpp"
#include "data/record_reader.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

class JsonLinesReader final : public RecordReader {
 public:
  JsonLinesReader(std::unique_ptr<ByteSource> source, std::string name, std::string field,
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
    if (bytes_.offset() == 0) {
      if (const std::string other = foreign_encoding(bytes_.head(4)); !other.empty()) fail(other);
    }
    finish_long_line();
    do {
      record.offset = bytes_.offset();
      if (!read_line(record.error)) return false;
      // Also inside the file: files that begin with the mark may have been put together.
      line_.erase(0, line_.size() - without_byte_order_mark(line_).size());
    } while (record.error.empty() && line_.find_first_not_of(kBlanks) == std::string::npos);
    if (index_ == 0 && record.error.empty()) refuse_whole_document();
    record.index = index_++;
    if (record.error.empty()) {
      ExtractedMember member = extract_string_member(line_, field_, record.text);
      record.error = std::move(member.error);
      record.absent = member.is_null;
    }
    return true;
  }

 private:
  static constexpr const char* kBlanks = " \t\r\n";

  [[noreturn]] void fail(const std::string& what) const {
    throw UserError(ExitCode::bad_data, fmt::format("{}: {}", name_, what));
  }

  /// A first line that opens an array of objects, or that is a lone bracket, belongs to one JSON
  /// document: every record of the file would be lost.
  void refuse_whole_document() const {
    const size_t first = line_.find_first_not_of(kBlanks);
    const size_t second = line_.find_first_not_of(kBlanks, first + 1);
    const bool alone = second == std::string::npos;
    const bool array = line_[first] == '[' && (alone || line_[second] == '{');
    if (array) {
      fail(
          "a JSON array, not JSON lines (one object a line, no brackets and commas between them); "
          "`jq -c '.[]' OLD > NEW` converts it");
    }
    if (line_[first] == '{' && alone) {
      fail(
          "a JSON document over several lines, not JSON lines (one object a line); `jq -c . OLD > "
          "NEW` puts every object on a line of its own");
    }
  }

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

  BufferedBytes bytes_;
  std::string name_, field_;
  uint64_t limit_;
  uint64_t index_ = 0;
  bool in_long_line_ = false;
  std::string line_;
};

}  // namespace

std::unique_ptr<RecordReader> read_json_lines(std::unique_ptr<ByteSource> source,
                                              const std::string& name, const std::string& field,
                                              const RecordLimits& limits) {
  return std::make_unique<JsonLinesReader>(std::move(source), name, field, limits);
}

}  // namespace polysketch
