// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace polysketch::hash_kernels {

// The two ways each hash is computed. Tests hold them together; everyone else uses hash.hpp, which
// chooses at run time.

bool has_crc32c_instruction();
bool has_sha256_instructions();

/// `crc` is the register, that is, already inverted.
uint32_t crc32c_software(uint32_t crc, const uint8_t* data, size_t size);
/// Only where has_crc32c_instruction().
uint32_t crc32c_hardware(uint32_t crc, const uint8_t* data, size_t size);

/// Folds `count` blocks of 64 bytes into the state (FIPS 180-4, section 6.2.2).
void sha256_software(std::array<uint32_t, 8>& state, const uint8_t* blocks, size_t count);
/// Only where has_sha256_instructions().
void sha256_hardware(std::array<uint32_t, 8>& state, const uint8_t* blocks, size_t count);

}  // namespace polysketch::hash_kernels
