// SPDX-License-Identifier: Apache-2.0
#include <arrow/io/interfaces.h>
#include <fmt/format.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <array>

#include "data/record_reader.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

/// Values looked at together; they point into a page that is in memory anyway.
constexpr int64_t kBatch = 64;

std::string type_of(const parquet::schema::Node& node) {
  const auto& logical = node.logical_type();
  if (node.is_group()) return logical->is_list() ? "list" : logical->is_map() ? "map" : "struct";
  const auto physical = static_cast<const parquet::schema::PrimitiveNode&>(node).physical_type();
  if (!logical->is_none() && logical->is_valid()) return ascii_lower(logical->ToString());
  if (physical == parquet::Type::BYTE_ARRAY) return node.is_repeated() ? "repeated" : "binary";
  return ascii_lower(parquet::TypeToString(physical));
}

/// Byte arrays are strings of all kinds, whatever Arrow made of them (large, view, dictionary), and
/// decimal numbers and BSON, which are not.
bool holds_text(const parquet::ColumnDescriptor& column) {
  const auto& logical = column.logical_type();
  return column.physical_type() == parquet::Type::BYTE_ARRAY &&
         column.max_repetition_level() == 0 && !logical->is_decimal() && !logical->is_BSON();
}

/// Below Arrow's own types: that layer must understand every column of a file before it gives one.
class ParquetTextReader final : public RecordReader {
 public:
  ParquetTextReader(std::shared_ptr<arrow::io::RandomAccessFile> file, std::string name,
                    std::string field)
      : name_(std::move(name)), field_(std::move(field)) {
    guarded([&] { open(std::move(file)); });
  }

  bool next(RawRecord& record) override {
    record.text.clear();
    record.error.clear();
    record.absent = false;
    record.split = false;
    record.offset = 0;
    bool any = false;
    guarded([&] { any = at_row(); });
    if (!any) return false;
    record.index = index_++;
    if (levels_[static_cast<size_t>(level_++)] < text_level_) {
      record.error = fmt::format("column '{}' is null", field_);
      record.absent = true;
    } else {
      const parquet::ByteArray& value = values_[static_cast<size_t>(value_++)];
      record.text.assign(reinterpret_cast<const char*>(value.ptr), value.len);
    }
    return true;
  }

 private:
  void open(std::shared_ptr<arrow::io::RandomAccessFile> file) {
    parquet::ReaderProperties properties = parquet::default_reader_properties();
    properties.set_page_checksum_verification(true);
    properties.enable_buffered_stream();
    file_ = parquet::ParquetFileReader::Open(std::move(file), properties);
    const parquet::SchemaDescriptor& schema = *file_->metadata()->schema();
    column_number_ = schema.ColumnIndex(field_);
    if (column_number_ < 0 || !holds_text(*schema.Column(column_number_))) refuse_column(schema);
    text_level_ = schema.Column(column_number_)->max_definition_level();
  }

  [[noreturn]] void refuse_column(const parquet::SchemaDescriptor& schema) const {
    const auto& root = *schema.group_node();
    std::string columns;
    for (int i = 0; i < root.field_count(); ++i) {
      columns +=
          fmt::format("{}{} {}", i > 0 ? ", " : "", root.field(i)->name(), type_of(*root.field(i)));
    }
    throw UserError(
        ExitCode::bad_data,
        fmt::format(
            "{}: {} '{}'; the columns are: {}: name the column of the text in the corpus "
            "description",
            name_,
            root.FieldIndex(field_) < 0 ? "there is no column" : "there is no text in column",
            field_, columns));
  }

  /// Makes the next row the one at `level_`; false at the end of the file.
  bool at_row() {
    while (level_ == levels_read_) {
      if (rows_left_ == 0) {
        column_.reset();
        if (group_ == file_->metadata()->num_row_groups()) return false;
        const auto group = file_->RowGroup(group_++);
        rows_left_ = group->metadata()->num_rows();
        if (rows_left_ > 0)
          column_ =
              std::static_pointer_cast<parquet::ByteArrayReader>(group->Column(column_number_));
        continue;
      }
      int64_t values = 0;
      levels_.fill(text_level_);  // a column without nulls has no levels
      levels_read_ = column_->HasNext()
                         ? column_->ReadBatch(std::min(kBatch, rows_left_), levels_.data(), nullptr,
                                              values_.data(), &values)
                         : 0;
      level_ = value_ = 0;
      int64_t texts = 0;
      for (int64_t i = 0; i < levels_read_; ++i)
        texts += levels_[static_cast<size_t>(i)] >= text_level_ ? 1 : 0;
      if (levels_read_ <= 0 || texts != values) fail("a column ends before its rows do");
      rows_left_ -= levels_read_;
    }
    return true;
  }

  [[noreturn]] void fail(std::string cause) const {
    for (char& c : cause) c = c == '\n' ? ' ' : c;
    throw UserError(
        ExitCode::bad_data,
        fmt::format(
            "{}: row {}: the Parquet file is damaged or truncated: {}: download the file again",
            name_, index_, cause));
  }
  template <class Action>
  void guarded(const Action& action) const {
    try {
      action();
    } catch (const UserError&) {
      throw;
    } catch (const std::exception& error) {
      fail(error.what());
    }
  }

  std::string name_, field_;
  std::unique_ptr<parquet::ParquetFileReader> file_;
  int column_number_ = 0;
  int16_t text_level_ = 0;  // definition level of a value; what is below is null
  int group_ = 0;           // the next one
  int64_t rows_left_ = 0;   // of the row group, behind what was read
  std::shared_ptr<parquet::ByteArrayReader> column_;
  std::array<int16_t, kBatch> levels_{};
  std::array<parquet::ByteArray, kBatch> values_{};
  int64_t levels_read_ = 0;
  int64_t level_ = 0, value_ = 0;
  uint64_t index_ = 0;
};

}  // namespace

std::unique_ptr<RecordReader> read_parquet(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                           const std::string& name, const std::string& field) {
  return std::make_unique<ParquetTextReader>(std::move(file), name, field);
}

}  // namespace polysketch
