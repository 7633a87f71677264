// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace polysketch {

enum class DataType { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean };

int64_t size_of(DataType type);
const char* safetensors_name(DataType type);

/// A tensor in memory, row-major and contiguous, to be written.
struct TensorView {
  std::string name;
  DataType type = DataType::f32;
  std::vector<int64_t> shape;
  const void* data = nullptr;
};

struct TensorInfo {
  std::string name;
  DataType type = DataType::f32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  ///< from the start of the file
  uint64_t bytes = 0;
};

/// What a writer learned about the file while writing it.
struct FileRecord {
  std::string name;  ///< within its folder
  uint64_t bytes = 0;
  std::string sha256;
  std::map<std::string, uint32_t> crc32c;  ///< of each tensor's bytes
};

/// Writes a safetensors file: header padded so that data starts 8-byte aligned, tensors in the
/// given order, no holes. The space is reserved first; content is fsynced before this returns; the
/// file appears under its name only then (DurableFile).
FileRecord write_safetensors(const std::filesystem::path& path,
                             const std::vector<TensorView>& tensors,
                             const std::map<std::string, std::string>& metadata = {});

/// Reads a safetensors file with pread after checking everything that may be wrong (header
/// size, first byte, UTF-8 JSON, duplicate keys, offsets contiguous from 0 to the end of the file,
/// shape product against bytes without overflow, known dtypes). Throws UserError 65 naming file and
/// defect.
class TensorFile {
 public:
  explicit TensorFile(const std::filesystem::path& path);
  TensorFile(TensorFile&& other) noexcept;
  ~TensorFile();

  uint64_t bytes() const { return bytes_; }  ///< of the whole file
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Copies the tensor's bytes to `target` (info.bytes long). Returns their CRC-32C.
  uint32_t read(const TensorInfo& info, void* target) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t bytes_ = 0;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace polysketch
