// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace polysketch {

/// CRC-32C (Castagnoli) of `size` bytes; `crc` continues an earlier call. Hardware instruction when
/// the CPU has it.
uint32_t crc32c(const void* data, size_t size, uint32_t crc = 0);

/// The masked form that TFRecord and TensorBoard event files store: rotate right by 15, add
/// 0xa282ead8.
uint32_t masked_crc32c(const void* data, size_t size);

/// SHA-256, streaming. Uses the CPU's SHA instructions when it has them (chosen at run time).
class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t size);
  /// The digest of everything so far. Call once.
  std::array<uint8_t, 32> digest();
  /// The digest in 64 lower-case hexadecimal digits. Call once.
  std::string hex();

 private:
  void compress(const uint8_t* blocks, size_t count);
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> buffer_{};
  uint64_t bytes_ = 0;
};

std::string sha256_hex(std::string_view text);

/// SHA-256 of a local file's content. Throws UserError (66 missing, 74 unreadable).
std::string sha256_file(const std::filesystem::path& path);

}  // namespace polysketch
