// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>

#include "attention/ops/cpu_rows.hpp"
#include "attention/ops/sketch.hpp"
#include "kernels/cpu/sketch_rows.hpp"

namespace polysketch::ops {
namespace {

using kernels::bf16;

constexpr int64_t kRows = 512;  // of a slice: 8R columns of bf16 in half an L2 cache
// shorter ones cost more in adding up gradients of parameters than they save
constexpr int64_t kShortestStrip = 512;

/// The parameters as the kernels pack them; one level after another.
template <class T>
at::Tensor packed(const SketchCall& call) {
  const auto& kernel = *kernels::sketch_kernels<T>(call.width(), call.size);
  std::vector<at::Tensor> wide;
  for (const at::Tensor& parameter : call.parameters)
    wide.push_back(parameter.to(at::kFloat).contiguous());
  kernels::SketchNetwork pointers;
  for (size_t side = 0; side < 2; ++side) {
    for (size_t depth = 0; depth < 2; ++depth) {
      const at::Tensor* first = &wide[side * 8 + depth * 4];
      pointers.gain[side][depth] = first[0].const_data_ptr<float>();
      pointers.bias[side][depth] = first[1].const_data_ptr<float>();
      pointers.up[side][depth] = first[2].const_data_ptr<float>();
      pointers.down[side][depth] = first[3].const_data_ptr<float>();
    }
  }
  const at::Tensor place =
      at::empty({static_cast<int64_t>(kernel.packed_bytes(call.width(), call.size))}, at::kByte);
  kernel.pack(pointers, call.width(), call.size, place.mutable_data_ptr());
  return place;
}

template <class T>
kernels::HeadRows<const T> rows_from(const at::Tensor& x, int64_t first) {
  return {static_cast<const T*>(x.const_data_ptr()) + first * x.stride(0), x.stride(0)};
}
template <class T>
kernels::HeadRows<T> mutable_rows_from(const at::Tensor& x, int64_t first) {
  return {static_cast<T*>(x.mutable_data_ptr()) + first * x.stride(0), x.stride(0)};
}

template <class T>
at::Tensor forward(const SketchCall& call) {
  const int64_t width = call.width(), size = call.size, count = call.x.size(0),
                slices = (count + kRows - 1) / kRows;
  const auto& kernel = *kernels::sketch_kernels<T>(width, size);
  const at::Tensor place = packed<T>(call), out = at::empty({count, size}, call.x.options());
  for_each_item(slices, kernel.forward_scratch(width, size), [&](int64_t slice, void* scratch) {
    const int64_t begin = slice * kRows;
    kernel.forward(place.const_data_ptr(), width, size, rows_from<T>(call.x, begin),
                   std::min(kRows, count - begin), mutable_rows_from<T>(out, begin), scratch);
  });
  return out;
}

template <class T>
SketchGradients backward(const SketchCall& call, const at::Tensor& gradient) {
  const int64_t width = call.width(), size = call.size, count = call.x.size(0);
  const auto& kernel = *kernels::sketch_kernels<T>(width, size);
  const at::Tensor place = packed<T>(call), dx = at::empty({count, width}, call.x.options());
  int64_t numbers = 0;
  for (const at::Tensor& parameter : call.parameters) numbers += parameter.numel();
  const int64_t strip = std::max(kShortestStrip, (count + kSketchStrips - 1) / kSketchStrips),
                strips = (count + strip - 1) / strip;
  const at::Tensor sums = at::zeros({strips, numbers}, at::kFloat);
  for_each_item(strips, kernel.backward_scratch(width, size), [&](int64_t i, void* scratch) {
    const int64_t begin = i * strip;
    kernel.backward(place.const_data_ptr(), width, size, rows_from<T>(call.x, begin),
                    std::min(strip, count - begin), rows_from<T>(gradient, begin),
                    mutable_rows_from<T>(dx, begin), sums.mutable_data_ptr<float>() + i * numbers,
                    scratch);
  });
  SketchGradients back{dx, {}};
  at::Tensor sum = sums[0].clone();
  for (int64_t i = 1; i < strips; ++i) sum.add_(sums[i]);
  int64_t begin = 0;
  for (const at::Tensor& parameter : call.parameters) {
    back.parameters.push_back(sum.narrow(0, begin, parameter.numel()).view(parameter.sizes()));
    begin += parameter.numel();
  }
  return back;
}

template <class T>
bool has_kernels(const SketchCall& call) {
  return kernels::sketch_kernels<T>(call.width(), call.size) != nullptr;
}

bool fits(const SketchCall& call) {
  if (!call.x.is_cpu() || call.degree != 2) return false;
  if (call.x.scalar_type() == at::kFloat) return has_kernels<float>(call);
  return call.x.scalar_type() == at::kBFloat16 && has_kernels<bf16>(call);
}

at::Tensor forward_any(const SketchCall& call) {
  return call.x.scalar_type() == at::kFloat ? forward<float>(call) : forward<bf16>(call);
}

SketchGradients backward_any(const SketchCall& call, const at::Tensor& gradient) {
  return call.x.scalar_type() == at::kFloat ? backward<float>(call, gradient)
                                            : backward<bf16>(call, gradient);
}

}  // namespace

const SketchImplementation sketch_cpu{{"cpu", has_head_kernels}, fits, forward_any, backward_any};

}  // namespace polysketch::ops
