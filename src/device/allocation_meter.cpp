// SPDX-License-Identifier: Apache-2.0
#include "device/allocation_meter.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace polysketch {
namespace {

constexpr auto all_pools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

/// Sizes of the blocks that were allocated under the present meter. LibTorch frees by the address
/// alone, perhaps when the meter is gone.
class Books {
 public:
  void open() {
    const std::lock_guard guard(mutex_);
    sizes_.clear();
    held_ = peak_ = 0;
  }
  void enter(void* block, int64_t bytes) {
    const std::lock_guard guard(mutex_);
    sizes_[block] = bytes;
    held_ += bytes;
    peak_ = std::max(peak_, held_);
  }
  void strike(void* block) {
    const std::lock_guard guard(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return;  // of the time before
    held_ -= found->second;
    sizes_.erase(found);
  }
  int64_t peak() {
    const std::lock_guard guard(mutex_);
    return peak_;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<void*, int64_t> sizes_;
  int64_t held_ = 0, peak_ = 0;
};

// Never destroyed: tensors may be freed until the process ends.
Books& books() {
  static Books* const kept = new Books;
  return *kept;
}

void free_block(void* block) {
  books().strike(block);
  c10::GetDefaultCPUAllocator()->raw_deallocate(block);
}

}  // namespace

/// Takes memory from LibTorch's allocator and keeps the books. A hook in that allocator would see
/// only the threads that carry it, and some scratch is allocated by workers. Blocks are those of
/// LibTorch's allocator, unchanged, so either of the two can free them.
class AllocationMeter::CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : replaced_(c10::GetCPUAllocator()) {
    books().open();
    c10::SetCPUAllocator(this, priority);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(replaced_, priority); }
  at::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, at::kCPU};
    void* block = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
    books().enter(block, static_cast<int64_t>(bytes));
    return {block, block, &free_block, at::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  int64_t peak_bytes() const { return books().peak(); }

 private:
  // that of LibTorch's own: a later call of the same priority replaces an earlier one
  static constexpr uint8_t priority = 0;
  c10::Allocator* replaced_;
};

AllocationMeter::AllocationMeter(const at::Device& device) : device_(device) {
  if (device.is_cpu()) {
    counting_ = std::make_unique<CountingAllocator>();
    return;
  }
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
  allocator->resetPeakStats(device.index());
  at_start_ = allocator->getDeviceStats(device.index()).allocated_bytes[all_pools].current;
}

AllocationMeter::~AllocationMeter() = default;

int64_t AllocationMeter::peak_bytes() const {
  if (counting_) return counting_->peak_bytes();
  return c10::getDeviceAllocator(device_.type())
             ->getDeviceStats(device_.index())
             .allocated_bytes[all_pools]
             .peak -
         at_start_;
}

}  // namespace polysketch
