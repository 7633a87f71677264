// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace polysketch {

/// While it lives: how much memory tensors took at most, above what they held when it was made.
/// Exact and repeatable, unlike the resident set of the process, which keeps what was freed. What
/// libraries allocate behind LibTorch's back (packed matrices of oneDNN) is not in it. One at a
/// time, and no other work on the device meanwhile.
class AllocationMeter {
 public:
  explicit AllocationMeter(const at::Device& device);
  AllocationMeter(const AllocationMeter&) = delete;
  AllocationMeter& operator=(const AllocationMeter&) = delete;
  ~AllocationMeter();
  int64_t peak_bytes() const;

 private:
  class CountingAllocator;
  at::Device device_;
  std::unique_ptr<CountingAllocator> counting_;  ///< CPU only
  int64_t at_start_ = 0;                         ///< GPU only: its allocator counts by itself
};

}  // namespace polysketch
