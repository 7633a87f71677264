// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/byte_source.hpp"

namespace arrow::io {
class RandomAccessFile;
}

namespace polysketch {

/// One record of a file as it stands there, before checks of the text and cleaning.
struct RawRecord {
  std::string text;     ///< value of the text field; not yet validated
  std::string error;    ///< not empty: the record has no text, and why
  bool absent = false;  ///< nothing is wrong with a record of this `error`: its text is null
  uint64_t index = 0;   ///< from 0
  uint64_t offset = 0;  ///< decompressed byte offset; 0 for Parquet, whose rows have none
  bool split = false;   ///< one part of a record that was too long to stay whole
};

/// Streams the records of one file with memory bounded by the limits. next() throws UserError 65
/// where the file as a whole cannot be read (truncated, checksum of a length, page checksum,
/// missing column, JSON that is not lines, UTF-16): that loses data, so no policy skips it.
class RecordReader {
 public:
  virtual ~RecordReader() = default;
  virtual bool next(RawRecord& record) = 0;
};

struct RecordLimits {
  uint64_t max_line_bytes = uint64_t{64} << 20;      ///< longest line or record
  uint64_t max_document_bytes = uint64_t{16} << 20;  ///< plain text: a longer file comes in parts
};

/// The whole file is one record; above max_document_bytes it comes in parts that end at line ends.
/// A byte order mark of UTF-8 at its start is no part of the text; with another one the record is
/// bad.
std::unique_ptr<RecordReader> read_plain_text(std::unique_ptr<ByteSource> source,
                                              const RecordLimits& limits);

/// One JSON object a line; blank lines and byte order marks of UTF-8 are passed over. `field`: name
/// of the string member that holds the text; `name` is for messages.
std::unique_ptr<RecordReader> read_json_lines(std::unique_ptr<ByteSource> source,
                                              const std::string& name, const std::string& field,
                                              const RecordLimits& limits);

/// TFRecord frames with tf.train.Example messages; `field`: name of a bytes_list feature with one
/// value.
std::unique_ptr<RecordReader> read_tfrecord(std::unique_ptr<ByteSource> source,
                                            const std::string& name, const std::string& field,
                                            const RecordLimits& limits);

/// Parquet, one column of byte arrays (strings of any kind), a page at a time; no other column is
/// looked at, so those may be of any type. Page checksums are verified where the file has them.
std::unique_ptr<RecordReader> read_parquet(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                           const std::string& name, const std::string& field);

}  // namespace polysketch
