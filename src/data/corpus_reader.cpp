// SPDX-License-Identifier: Apache-2.0
#include "data/corpus_reader.hpp"

#include <fmt/format.h>

#include "data/cleaning.hpp"
#include "data/text_cut.hpp"
#include "support/log.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

class CorpusDocumentReader final : public DocumentReader {
 public:
  CorpusDocumentReader(std::unique_ptr<RecordReader> records, std::string file,
                       const DocumentRules& rules, std::shared_ptr<BadRecords> bad)
      : records_(std::move(records)), file_(std::move(file)), rules_(rules), bad_(std::move(bad)) {}

  bool next(Document& document) override {
    while (true) {
      if (!rest_.empty()) {
        hand_out_part(document);
        if (is_blank(document.text)) continue;
        return true;
      }
      if (!records_->next(record_)) {
        if (!any_)
          log_warning(fmt::format("{}: contains no documents{}", file_,
                                  empty_ > 0 ? fmt::format(" (empty records: {}; the last one: {})",
                                                           empty_, empty_cause_)
                                             : ""));
        any_ = true;
        return false;
      }
      records_passed_ = record_.index + 1;
      if (!usable()) continue;
      any_ = true;
      if (record_.text.size() > rules_.max_document_bytes) {
        bad_->count_split();
        rest_ = std::move(record_.text);
        rest_begin_ = 0;
        continue;
      }
      fill(document, std::move(record_.text));
      return true;
    }
  }

  uint64_t records() const override { return records_passed_; }

 private:
  /// Checks and cleans the record; false: counted as bad or empty.
  bool usable() {
    if (record_.absent) return leave_empty(record_.error);
    if (!record_.error.empty()) return reject(record_.error);
    std::string& text = record_.text;
    if (rules_.repair_bytes_literal) text = repair_bytes_literal(std::move(text));
    if (const auto at = invalid_utf8_at(text))
      return reject(fmt::format("invalid UTF-8 (at byte {} of the text)", *at));
    if (const size_t at = text.find('\0'); at != std::string::npos)
      return reject(fmt::format("a NUL character (at byte {} of the text)", at));
    if (rules_.wiki_markup && rules_.cleaning != Cleaning::none)
      text = clean_wiki_markup(text, rules_.cleaning);
    if (is_blank(text)) return leave_empty("blank text");
    bad_->good();
    if (record_.split && !counted_split_) {
      bad_->count_split();
      counted_split_ = true;
    }
    return true;
  }

  bool leave_empty(const std::string& cause) {
    bad_->good();
    bad_->count_empty(cause);
    ++empty_;
    empty_cause_ = cause;
    return false;
  }

  bool reject(const std::string& cause) {
    bad_->report(file_, record_.index, record_.offset, cause);
    return false;
  }

  void fill(Document& document, std::string text) const {
    document.text = std::move(text);
    document.index = record_.index;
    document.offset = record_.offset;
  }

  void hand_out_part(Document& document) {
    const std::string_view left = std::string_view(rest_).substr(rest_begin_);
    const size_t size = left.size() <= rules_.max_document_bytes
                            ? left.size()
                            : cut_position(left.substr(0, rules_.max_document_bytes));
    fill(document, std::string(left.substr(0, size)));
    rest_begin_ += size;
    if (rest_begin_ == rest_.size()) rest_.clear();
  }

  std::unique_ptr<RecordReader> records_;
  std::string file_;
  DocumentRules rules_;
  std::shared_ptr<BadRecords> bad_;
  RawRecord record_;
  std::string rest_;  // of a record that leaves in parts
  size_t rest_begin_ = 0;
  uint64_t records_passed_ = 0;
  bool any_ = false;
  int64_t empty_ = 0;
  std::string empty_cause_;
  bool counted_split_ = false;
};

}  // namespace

std::unique_ptr<DocumentReader> read_documents(std::unique_ptr<RecordReader> records,
                                               const std::string& file, const DocumentRules& rules,
                                               std::shared_ptr<BadRecords> bad) {
  return std::make_unique<CorpusDocumentReader>(std::move(records), file, rules, std::move(bad));
}

}  // namespace polysketch
