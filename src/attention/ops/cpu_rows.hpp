// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/cpu/head_rows.hpp"

// How tensors [B, H, T, D] reach the CPU kernels, which work on the rows of one head.

namespace polysketch::ops {

/// Implementation::serves of the kernels that work on heads: processors with AVX-512.
bool has_head_kernels(const at::Device& device);

/// x with the numbers of a row side by side.
at::Tensor with_whole_rows(const at::Tensor& x);

/// [B, H, T, D] like x, in memory [B, T, H, D].
at::Tensor joined_like(const at::Tensor& x);

/// Rows of head b·H + h. T: float or bf16, the type of x.
template <class T>
kernels::HeadRows<const T> rows_of(const at::Tensor& x, int64_t head) {
  const int64_t b = head / x.size(1), h = head % x.size(1);
  return {static_cast<const T*>(x.const_data_ptr()) + b * x.stride(0) + h * x.stride(1),
          x.stride(2)};
}
template <class T>
kernels::HeadRows<T> mutable_rows_of(const at::Tensor& x, int64_t head) {
  const int64_t b = head / x.size(1), h = head % x.size(1);
  return {static_cast<T*>(x.mutable_data_ptr()) + b * x.stride(0) + h * x.stride(1), x.stride(2)};
}

/// Runs work(item, scratch) for 0 … items-1. Threads take the next item when they are done with
/// one: heads can differ in cost, and threads in speed.
void for_each_item(int64_t items, size_t scratch_bytes,
                   const std::function<void(int64_t, void*)>& work);

}  // namespace polysketch::ops
