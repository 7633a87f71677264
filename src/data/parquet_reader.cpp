// SPDX-License-Identifier: Apache-2.0
#include <arrow/array.h>
#include <arrow/io/interfaces.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <numeric>

#include "data/record_reader.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// A row may be a whole book, so few rows at a time.
constexpr int64_t kRowsPerBatch = 32;

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
    record.split = false;
    record.offset = 0;
    while (column_ == nullptr || row_ == column_->length()) {
      std::shared_ptr<arrow::RecordBatch> batch;
      guarded([&] { check(batches_->ReadNext(&batch)); });
      if (batch == nullptr) return false;
      column_ = batch->column(0);
      row_ = 0;
    }
    record.index = index_++;
    if (column_->IsNull(row_)) {
      record.error = fmt::format("column '{}' is null", field_);
    } else {
      record.text.assign(value(row_));
    }
    ++row_;
    return true;
  }

 private:
  void open(std::shared_ptr<arrow::io::RandomAccessFile> file) {
    parquet::ReaderProperties pages = parquet::default_reader_properties();
    pages.set_page_checksum_verification(true);
    pages.enable_buffered_stream();
    parquet::ArrowReaderProperties properties(/*use_threads=*/false);
    properties.set_batch_size(kRowsPerBatch);
    properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    check(builder.Open(std::move(file), pages));
    builder.properties(properties);
    check(builder.Build(&reader_));
    std::shared_ptr<arrow::Schema> schema;
    check(reader_->GetSchema(&schema));
    const int column = schema->GetFieldIndex(field_);
    const auto type = column < 0 ? nullptr : schema->field(column)->type();
    if (type == nullptr || !(arrow::is_base_binary_like(type->id()))) {
      std::string columns;
      for (const auto& member : schema->fields()) {
        columns += fmt::format("{}{} {}", columns.empty() ? "" : ", ", member->name(),
                               member->type()->ToString());
      }
      throw UserError(
          ExitCode::bad_data,
          fmt::format("{}: {} '{}'; the columns are: {}: name the column of the text in the corpus "
                      "description",
                      name_, type == nullptr ? "there is no column" : "there is no text in column",
                      field_, columns));
    }
    std::vector<int> groups(static_cast<size_t>(reader_->num_row_groups()));
    std::iota(groups.begin(), groups.end(), 0);
    // Leaf numbers count nested members too, so the leaf is looked up by its path.
    const int leaf = reader_->parquet_reader()->metadata()->schema()->ColumnIndex(field_);
    auto batches = reader_->GetRecordBatchReader(groups, {leaf});
    check(batches.status());
    batches_ = std::move(*batches);
  }

  std::string_view value(int64_t row) const {
    switch (column_->type_id()) {
      case arrow::Type::LARGE_STRING:
      case arrow::Type::LARGE_BINARY:
        return static_cast<const arrow::LargeBinaryArray&>(*column_).GetView(row);
      default:
        return static_cast<const arrow::BinaryArray&>(*column_).GetView(row);
    }
  }

  [[noreturn]] void fail(std::string cause) const {
    for (char& c : cause) c = c == '\n' ? ' ' : c;
    throw UserError(
        ExitCode::bad_data,
        fmt::format(
            "{}: row {}: the Parquet file is damaged or truncated: {}: fetch the file again", name_,
            index_, cause));
  }
  void check(const arrow::Status& status) const {
    if (!status.ok()) fail(status.message());
  }
  template <class Action>
  void guarded(const Action& action) const {
    try {
      action();
    } catch (const parquet::ParquetException& error) {
      fail(error.what());
    }
  }

  std::string name_, field_;
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::Array> column_;
  int64_t row_ = 0;
  uint64_t index_ = 0;
};

}  // namespace

std::unique_ptr<RecordReader> read_parquet(std::shared_ptr<arrow::io::RandomAccessFile> file,
                                           const std::string& name, const std::string& field) {
  return std::make_unique<ParquetTextReader>(std::move(file), name, field);
}

}  // namespace polysketch
