// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "data/corpus.hpp"
#include "data/record_reader.hpp"

namespace polysketch {

/// What happens to a record's text on its way to a document.
struct DocumentRules {
  bool repair_bytes_literal = false;
  bool wiki_markup = false;
  Cleaning cleaning = Cleaning::none;
  uint64_t max_document_bytes = uint64_t{16} << 20;
};

/// Checks (strict UTF-8, no NUL), repairs, cleans, counts: every text that leaves is a valid,
/// non-blank document of at most max_document_bytes; longer ones leave in parts that end at line
/// ends where there are any.
std::unique_ptr<DocumentReader> read_documents(std::unique_ptr<RecordReader> records,
                                               const std::string& file, const DocumentRules& rules,
                                               std::shared_ptr<BadRecords> bad);

}  // namespace polysketch
