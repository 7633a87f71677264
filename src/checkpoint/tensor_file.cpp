// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/tensor_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "checkpoint/tensor_header.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

// Checksums are taken of a piece while it is in the cache.
constexpr size_t piece_bytes = size_t{1} << 20;

[[noreturn]] void refuse(const fs::path& path, const std::string& defect) {
  throw UserError(
      ExitCode::bad_data,
      fmt::format("{}: {}; the file is damaged or not a safetensors file: use another copy",
                  path.string(), defect));
}

[[noreturn]] void refuse_input(const fs::path& path, int error) {
  throw_system_error(path, "read", error, exit_code_of_reading(error));
}

void read_exactly(const fs::path& path, int fd, void* target, size_t size, uint64_t offset) {
  auto* at = static_cast<char*>(target);
  while (size > 0) {
    const ssize_t got = ::pread(fd, at, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse_input(path, errno);
    if (got == 0) refuse(path, fmt::format("ends at byte {}, {} more expected", offset, size));
    at += got;
    size -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
}

uint64_t decode_length(const std::array<uint8_t, 8>& bytes) {
  uint64_t value = 0;
  for (size_t i = 8; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

std::array<uint8_t, 8> encode_length(uint64_t value) {
  std::array<uint8_t, 8> bytes{};
  for (auto& byte : bytes) {
    byte = static_cast<uint8_t>(value);
    value >>= 8;
  }
  return bytes;
}

/// The header's text, padded with blanks so that the data after the 8 bytes of length begin 8-byte
/// aligned.
std::string header_text(const std::vector<TensorView>& tensors,
                        const std::map<std::string, std::string>& metadata, uint64_t& data_bytes) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + nlohmann::json(metadata).dump();
  std::set<std::string> names;
  data_bytes = 0;
  for (const TensorView& tensor : tensors) {
    uint64_t bytes = 0;
    require(tensor.name != "__metadata__" && names.insert(tensor.name).second,
            "tensor names must differ from each other and from __metadata__");
    require(tensor_bytes(tensor.type, tensor.shape, bytes), "a tensor's size overflows");
    require(bytes == 0 || tensor.data != nullptr, "a tensor to be written has no data");
    if (text.size() > 1) text += ',';
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                        nlohmann::json(tensor.name).dump(), safetensors_name(tensor.type),
                        nlohmann::json(tensor.shape).dump(), data_bytes, data_bytes + bytes);
    data_bytes += bytes;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  require(text.size() <= largest_tensor_header, "too many tensors for one safetensors file");
  return text;
}

}  // namespace

FileRecord write_safetensors(const fs::path& path, const std::vector<TensorView>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  uint64_t data_bytes = 0;
  const std::string header = header_text(tensors, metadata, data_bytes);
  const std::array<uint8_t, 8> length = encode_length(header.size());

  DurableFile file(path);
  file.reserve(length.size() + header.size() + data_bytes);
  Sha256 sha256;
  const auto put = [&](const void* data, size_t size) {
    sha256.update(data, size);
    file.write(data, size);
  };
  put(length.data(), length.size());
  put(header.data(), header.size());

  FileRecord record;
  for (const TensorView& tensor : tensors) {
    uint64_t left = 0;
    tensor_bytes(tensor.type, tensor.shape, left);
    const auto* at = static_cast<const char*>(tensor.data);
    uint32_t crc = 0;
    while (left > 0) {
      const size_t size = std::min<uint64_t>(left, piece_bytes);
      crc = crc32c(at, size, crc);
      put(at, size);
      at += size;
      left -= size;
    }
    record.crc32c[tensor.name] = crc;
  }
  file.commit();
  record.name = path.filename().string();
  record.bytes = length.size() + header.size() + data_bytes;
  record.sha256 = sha256.hex();
  return record;
}

TensorFile::TensorFile(const fs::path& path) : path_(path) {
  // Not blocking: a FIFO in the place of the file must not hang the program.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) refuse_input(path, errno);
  try {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) refuse_input(path, errno);
    if (!S_ISREG(status.st_mode)) refuse(path, "is not a regular file");
    bytes_ = static_cast<uint64_t>(status.st_size);
    const auto size = static_cast<uint64_t>(status.st_size);
    std::array<uint8_t, 8> length{};
    if (size < length.size())
      refuse(path, fmt::format("has {} bytes, fewer than the 8 of a header's length", size));
    read_exactly(path_, fd_, length.data(), length.size(), 0);
    const uint64_t header_bytes = decode_length(length);
    if (header_bytes > largest_tensor_header) {
      refuse(path, fmt::format("claims a header of {} bytes, more than {}", header_bytes,
                               largest_tensor_header));
    }
    if (header_bytes > size - length.size()) {
      refuse(path, fmt::format("claims a header of {} bytes, the file has {} after its length",
                               header_bytes, size - length.size()));
    }
    std::string text(header_bytes, '\0');
    read_exactly(path_, fd_, text.data(), text.size(), length.size());
    const uint64_t data_begin = length.size() + header_bytes;
    TensorHeader header = parse_tensor_header(text, size - data_begin);
    tensors_ = std::move(header.tensors);
    metadata_ = std::move(header.metadata);
    for (TensorInfo& tensor : tensors_) tensor.offset += data_begin;
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  } catch (const std::invalid_argument& defect) {
    ::close(fd_);
    refuse(path, defect.what());
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

TensorFile::TensorFile(TensorFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      bytes_(other.bytes_),
      tensors_(std::move(other.tensors_)),
      metadata_(std::move(other.metadata_)) {}

TensorFile::~TensorFile() {
  if (fd_ >= 0) ::close(fd_);
}

const TensorInfo* TensorFile::find(const std::string& name) const {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                  [&](const TensorInfo& tensor) { return tensor.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

uint32_t TensorFile::read(const TensorInfo& info, void* target) const {
  auto* at = static_cast<char*>(target);
  uint32_t crc = 0;
  for (uint64_t done = 0; done < info.bytes;) {
    const size_t size = std::min<uint64_t>(info.bytes - done, piece_bytes);
    read_exactly(path_, fd_, at + done, size, info.offset + done);
    crc = crc32c(at + done, size, crc);
    done += size;
  }
  return crc;
}

}  // namespace polysketch
