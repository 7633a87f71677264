// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "data/record_reader.hpp"
#include "data/text_cut.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

class PlainTextReader final : public RecordReader {
 public:
  PlainTextReader(std::unique_ptr<ByteSource> source, const RecordLimits& limits)
      : bytes_(std::move(source)), limit_(std::max<uint64_t>(limits.max_document_bytes, 16)) {}

  bool next(RawRecord& record) override {
    record.error.clear();
    record.absent = false;
    record.index = 0;
    record.offset = offset_;
    record.text = std::move(carry_);
    carry_.clear();
    while (record.text.size() <= limit_) {
      const std::string_view at_hand = bytes_.peek();
      if (at_hand.empty()) break;
      const size_t part = std::min<size_t>(at_hand.size(), limit_ + 1 - record.text.size());
      record.text.append(at_hand.substr(0, part));
      bytes_.consume(part);
    }
    if (offset_ == 0) {
      if (std::string other = foreign_encoding(record.text); !other.empty()) {
        // Its parts would be bad records one by one.
        record.text.clear();
        record.error = std::move(other);
        record.split = false;
        while (bytes_.skip(kWhole) > 0) {
        }
        done_ = true;
        offset_ = bytes_.offset();
        return true;
      }
      record.text.erase(0, record.text.size() - without_byte_order_mark(record.text).size());
    }
    if (record.text.size() > limit_) {
      const size_t cut = cut_position(std::string_view(record.text).substr(0, limit_));
      carry_ = record.text.substr(cut);
      record.text.resize(cut);
      parts_ = true;
    } else if (done_) {
      return false;
    } else {
      done_ = true;
    }
    record.split = parts_;
    offset_ = bytes_.offset() - carry_.size();
    return true;
  }

 private:
  static constexpr uint64_t kWhole = uint64_t{1} << 40;

  BufferedBytes bytes_;
  uint64_t limit_;
  std::string carry_;
  uint64_t offset_ = 0;
  bool parts_ = false;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<RecordReader> read_plain_text(std::unique_ptr<ByteSource> source,
                                              const RecordLimits& limits) {
  return std::make_unique<PlainTextReader>(std::move(source), limits);
}

}  // namespace polysketch
