// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/scratch.hpp"

#include <cstddef>
#include <vector>

namespace polysketch::kernels {

void* thread_scratch(int64_t bytes) {
  struct alignas(64) Line {
    char bytes[64];
  };
  thread_local std::vector<Line> memory;
  const auto lines = static_cast<size_t>((bytes + 63) / 64);
  if (memory.size() < lines) memory.resize(lines);
  return memory.data();
}

}  // namespace polysketch::kernels
