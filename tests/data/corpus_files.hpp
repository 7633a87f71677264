// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arrow/array/builder_binary.h>
#include <arrow/io/file.h>
#include <arrow/table.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <zlib.h>

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/corpus.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch::test {

/// The error that the action ends with; a failed test and an empty one if there is none.
inline UserError error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos)
        << "more than one line: " << error.what();
    return error;
  }
  ADD_FAILURE() << "no error";
  return {ExitCode::done, ""};
}

inline void expect_error(ExitCode code, const std::vector<std::string>& parts,
                         const std::function<void()>& action) {
  const UserError error = error_of(action);
  EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
  for (const auto& part : parts)
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
        << "'" << part << "' is not in: " << error.what();
}

inline DataConfig corpus_config(const std::string& corpus, const std::filesystem::path& root) {
  DataConfig config;
  config.corpus = corpus;
  config.root = root.string();
  return config;
}

inline std::vector<Document> read_all(const Corpus& corpus, Split split) {
  std::vector<Document> documents;
  for (const auto& file : corpus.files(split)) {
    const auto reader = corpus.read(file);
    for (Document document; reader->next(document);) documents.push_back(document);
  }
  return documents;
}

inline std::vector<std::string> texts_of(const DataConfig& config, Split split) {
  std::vector<std::string> texts;
  for (auto& document : read_all(Corpus::open(config), split))
    texts.push_back(std::move(document.text));
  return texts;
}

inline std::string gzip(const std::string& text, int level = 6) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7F));
  return out + static_cast<char>(value);
}

inline std::string wire_bytes(uint32_t field, const std::string& content) {
  return varint(field << 3 | 2) + varint(content.size()) + content;
}

/// A tf.train.Example with byte-string features.
inline std::string example(const std::vector<std::pair<std::string, std::string>>& features) {
  std::string map;
  for (const auto& [key, value] : features)
    map += wire_bytes(1, wire_bytes(1, key) + wire_bytes(2, wire_bytes(1, wire_bytes(1, value))));
  return wire_bytes(1, map);
}

inline std::string little_endian(uint64_t value, size_t size) {
  std::string out(size, '\0');
  std::memcpy(out.data(), &value, size);
  return out;
}

inline std::string tfrecord(const std::string& payload) {
  const std::string length = little_endian(payload.size(), 8);
  return length + little_endian(masked_crc32c(length.data(), 8), 4) + payload +
         little_endian(masked_crc32c(payload.data(), payload.size()), 4);
}

/// Strings in one column; an empty optional is a null.
inline void write_parquet(const std::filesystem::path& path, const std::string& column,
                          const std::vector<std::optional<std::string>>& values,
                          int64_t rows_per_group = 7) {
  arrow::StringBuilder builder;
  for (const auto& value : values)
    ASSERT_TRUE((value ? builder.Append(*value) : builder.AppendNull()).ok());
  const auto array = builder.Finish().ValueOrDie();
  const auto schema =
      arrow::schema({arrow::field("id", arrow::utf8()), arrow::field(column, arrow::utf8())});
  std::filesystem::create_directories(path.parent_path());
  const auto file = arrow::io::FileOutputStream::Open(path.string()).ValueOrDie();
  const auto properties = parquet::WriterProperties::Builder()
                              .enable_page_checksum()
                              ->compression(parquet::Compression::ZSTD)
                              ->build();
  ASSERT_TRUE(parquet::arrow::WriteTable(*arrow::Table::Make(schema, {array, array}),
                                         arrow::default_memory_pool(), file, rows_per_group,
                                         properties)
                  .ok());
  ASSERT_TRUE(file->Close().ok());
}

}  // namespace polysketch::test
