// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace polysketch {

/// One text of a corpus: a book, an article, a page. UTF-8, validated, cleaned.
struct Document {
  std::string text;
  uint64_t index =
      0;  ///< number of the record in its file, counted from 0; skipped bad records are counted too
  /// byte offset of the record in the (decompressed) file, for error messages
  uint64_t offset = 0;
};

/// Streams the documents of one file. Memory does not grow with the size of the file.
class DocumentReader {
 public:
  virtual ~DocumentReader() = default;

  /// The next document, or false at the end of the file. Bad records follow the corpus's error
  /// policy (UserError 65, or skipped and counted). Checks of the whole file (gzip trailer,
  /// TFRecord CRC) have passed when this returns false.
  virtual bool next(Document& document) = 0;

  /// How many records of the file next() has passed, those without a document included; 0: unknown.
  virtual uint64_t records() const { return 0; }
};

}  // namespace polysketch
