// SPDX-License-Identifier: Apache-2.0
#include "device/accelerator.hpp"

namespace polysketch {

const std::vector<Accelerator>& accelerators() {
  static const std::vector<Accelerator> known = {
      {"H200", 989.4e12, 67e12, 4.8e12, 141e9, 900e9},
      {"H100 PCIe", 756e12, 51e12, 2.0e12, 80e9, 128e9},
      {"H100", 989.4e12, 67e12, 3.35e12, 80e9, 900e9},
      {"A100", 312e12, 19.5e12, 2.039e12, 80e9, 600e9},
      {"L40S", 362e12, 91.6e12, 0.864e12, 48e9, 64e9},
      {"B200", 2250e12, 80e12, 8.0e12, 180e9, 1800e9},
  };
  return known;
}

const Accelerator* find_accelerator(std::string_view text) {
  for (const Accelerator& one : accelerators()) {
    if (text.find(one.name) != std::string_view::npos) return &one;
  }
  return nullptr;
}

}  // namespace polysketch
