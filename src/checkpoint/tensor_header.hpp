// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_file.hpp"

namespace polysketch {

/// The most bytes a safetensors header may have; the format's own limit.
constexpr uint64_t largest_tensor_header = 100'000'000;

struct TensorHeader {
  /// in the order of their bytes; offsets relative to the end of the header
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads the JSON part of a safetensors file that has `data_bytes` bytes after it. Checks every
/// rule of the format (docs/formats.md) and allocates in proportion to the text only, whatever
/// sizes it claims. Throws std::invalid_argument with the defect.
TensorHeader parse_tensor_header(std::string_view text, uint64_t data_bytes);

/// Bytes of a tensor, or nothing if the product overflows 63 bits.
bool tensor_bytes(DataType type, const std::vector<int64_t>& shape, uint64_t& bytes);

}  // namespace polysketch
