// SPDX-License-Identifier: Apache-2.0
#include "attention/documents.hpp"

#include <ATen/ATen.h>

#include "attention/attention.hpp"

namespace polysketch {

struct Documents::Layout {
  at::Tensor starts;
  std::vector<std::vector<int64_t>> lengths;
};

Documents::Documents(const at::Tensor& ids) {
  if (!ids.defined()) return;
  if (ids.dim() != 2 || ids.scalar_type() != at::kInt || !ids.is_cpu())
    throw ShapeError("documents: want [B, T] int32 on the CPU");
  const at::Tensor rows = ids.contiguous();
  const int64_t batch = rows.size(0), length = rows.size(1);
  auto layout = std::make_shared<Layout>();
  layout->starts = at::empty({batch, length}, at::kInt);
  layout->lengths.resize(static_cast<size_t>(batch));
  const int32_t* id = rows.const_data_ptr<int32_t>();
  int32_t* start = layout->starts.mutable_data_ptr<int32_t>();
  for (int64_t b = 0; b < batch; ++b, id += length, start += length) {
    auto& lengths = layout->lengths[static_cast<size_t>(b)];
    for (int64_t t = 0; t < length; ++t) {
      const bool first = t == 0 || id[t] != id[t - 1];
      start[t] = first ? static_cast<int32_t>(t) : start[t - 1];
      if (first) lengths.push_back(0);
      ++lengths.back();
    }
  }
  layout_ = std::move(layout);
}

const at::Tensor& Documents::starts() const {
  require(defined(), "Documents::starts() of a batch without documents");
  return layout_->starts;
}

const std::vector<std::vector<int64_t>>& Documents::lengths() const {
  require(defined(), "Documents::lengths() of a batch without documents");
  return layout_->lengths;
}

}  // namespace polysketch
