// SPDX-License-Identifier: Apache-2.0
#include "support/hash.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "support/error.hpp"
#include "support/hash_kernels.hpp"
#include "support/system_error.hpp"

namespace polysketch {

uint32_t crc32c(const void* data, size_t size, uint32_t crc) {
  static const auto advance = hash_kernels::has_crc32c_instruction()
                                  ? hash_kernels::crc32c_hardware
                                  : hash_kernels::crc32c_software;
  return ~advance(~crc, static_cast<const uint8_t*>(data), size);
}

uint32_t masked_crc32c(const void* data, size_t size) {
  return std::rotr(crc32c(data, size), 15) + 0xa282ead8u;
}

Sha256::Sha256()
    : state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {}

void Sha256::compress(const uint8_t* blocks, size_t count) {
  static const auto fold = hash_kernels::has_sha256_instructions() ? hash_kernels::sha256_hardware
                                                                   : hash_kernels::sha256_software;
  fold(state_, blocks, count);
}

void Sha256::update(const void* data, size_t size) {
  if (size == 0) return;
  const auto* bytes = static_cast<const uint8_t*>(data);
  const size_t held = bytes_ % 64;
  bytes_ += size;
  if (held > 0) {
    const size_t taken = std::min(size, 64 - held);
    std::memcpy(buffer_.data() + held, bytes, taken);
    if (held + taken < 64) return;
    compress(buffer_.data(), 1);
    bytes += taken;
    size -= taken;
  }
  compress(bytes, size / 64);
  std::memcpy(buffer_.data(), bytes + size / 64 * 64, size % 64);
}

std::array<uint8_t, 32> Sha256::digest() {
  const uint64_t bits = bytes_ * 8;
  std::array<uint8_t, 72> padding{0x80};
  const size_t held = bytes_ % 64;
  const size_t zeros_end = (held < 56 ? 56 : 120) - held;
  for (size_t i = 0; i < 8; ++i)
    padding[zeros_end + i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(padding.data(), zeros_end + 8);
  std::array<uint8_t, 32> result;
  for (size_t i = 0; i < 32; ++i)
    result[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  return result;
}

std::string Sha256::hex() {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest()) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    throw_system_error(path, "open", error, exit_code_of_reading(error));
  }
  Sha256 hash;
  std::vector<uint8_t> buffer(1 << 20);
  for (;;) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n == 0) break;
    if (n < 0) {
      const int error = errno;
      if (error == EINTR) continue;
      close(fd);
      throw_system_error(path, "read", error, ExitCode::io);
    }
    hash.update(buffer.data(), static_cast<size_t>(n));
  }
  close(fd);
  return hash.hex();
}

}  // namespace polysketch
