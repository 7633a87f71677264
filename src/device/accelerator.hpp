// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace polysketch {

/// A GPU as its maker's data sheet describes it.
struct Accelerator {
  std::string_view name;    ///< part of what the driver calls it, and what a user writes
  double bf16_flops;        ///< dense FLOP/s of matrix products
  double fp32_flops;        ///< FLOP/s of ordinary fp32 arithmetic
  double memory_bandwidth;  ///< bytes a second
  double memory_bytes;      ///< of the device
  /// to other GPUs of the machine, bytes a second in both directions together: NVLink, or PCIe
  /// where there is none
  double link_bandwidth;
};

/// All that are known; a name that contains another one stands before it.
const std::vector<Accelerator>& accelerators();

/// The one whose name is part of `text`, or nullptr.
const Accelerator* find_accelerator(std::string_view text);

}  // namespace polysketch
