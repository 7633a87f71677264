// SPDX-License-Identifier: Apache-2.0
#include "model/allocation_meter.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <atomic>

namespace polysketch {
namespace {

constexpr auto all_pools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

/// Shared with every block, since a block may be freed after its meter is gone.
struct Count {
  std::atomic<int64_t> now{0}, peak{0};
  void add(int64_t bytes) {
    const int64_t held = now.fetch_add(bytes) + bytes;
    int64_t highest = peak.load();
    while (held > highest && !peak.compare_exchange_weak(highest, held)) {
    }
  }
};

struct Block {
  at::DataPtr memory;
  std::shared_ptr<Count> count;
  int64_t bytes;
  ~Block() { count->add(-bytes); }
};

}  // namespace

/// Takes memory from LibTorch's allocator and keeps the books. A hook in the allocator itself would see only the threads that carry it, and
/// some scratch is allocated by workers.
class AllocationMeter::CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : wrapped_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, priority); }
  ~CountingAllocator() override { c10::SetCPUAllocator(wrapped_, priority); }
  at::DataPtr allocate(size_t bytes) override {
    auto* block = new Block{wrapped_->allocate(bytes), count_, static_cast<int64_t>(bytes)};
    count_->add(block->bytes);
    return {block->memory.get(), block, [](void* context) { delete static_cast<Block*>(context); }, at::kCPU};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  int64_t peak_bytes() const { return count_->peak; }

 private:
  static constexpr uint8_t priority = 0;  // that of LibTorch's own: a later call of the same priority replaces an earlier one
  c10::Allocator* wrapped_;
  std::shared_ptr<Count> count_ = std::make_shared<Count>();
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
  return c10::getDeviceAllocator(device_.type())->getDeviceStats(device_.index()).allocated_bytes[all_pools].peak - at_start_;
}

}  // namespace polysketch
