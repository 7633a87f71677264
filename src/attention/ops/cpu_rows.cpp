// SPDX-License-Identifier: Apache-2.0
#include "attention/ops/cpu_rows.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "kernels/cpu/instruction_set.hpp"

namespace polysketch::ops {

bool has_head_kernels(const at::Device& device) {
  return device.is_cpu() && kernels::instruction_set() >= kernels::InstructionSet::avx512;
}

at::Tensor with_whole_rows(const at::Tensor& x) {
  return x.stride(3) == 1 || x.size(3) == 1 ? x : x.contiguous();
}

at::Tensor joined_like(const at::Tensor& x) {
  return at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options()).transpose(1, 2);
}

void for_each_item(int64_t items, size_t scratch_bytes,
                   const std::function<void(int64_t, void*)>& work) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(items, at::get_num_threads());
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    if (begin == end) return;
    const at::Tensor scratch = at::empty({static_cast<int64_t>(scratch_bytes)}, at::kByte);
    for (int64_t item = next++; item < items; item = next++) work(item, scratch.mutable_data_ptr());
  });
}

}  // namespace polysketch::ops
