// SPDX-License-Identifier: Apache-2.0
#include "attention/documents.hpp"

#include <ATen/ATen.h>

#include <mutex>

#include "attention/attention.hpp"

namespace polysketch {
namespace {

at::Tensor beside(const at::Tensor& host, const at::Device& device) {
  return device.is_cpu() ? host : host.to(device);
}

}  // namespace

struct Documents::Layout {
  at::Tensor starts;  ///< undefined: every row is one document
  std::vector<std::vector<int64_t>> lengths;

  struct Blocks {
    int64_t block;
    FirstKeys first;
  };
  std::mutex mutex;  ///< of what follows
  at::Tensor device_starts;
  std::vector<Blocks> blocks;
};

Documents::Documents() : layout_(std::make_shared<Layout>()) {}

Documents::Documents(const at::Tensor& ids) : Documents() {
  if (!ids.defined()) return;
  if (ids.dim() != 2 || ids.scalar_type() != at::kInt || !ids.is_cpu())
    throw ShapeError("documents: want [B, T] int32 on the CPU");
  const at::Tensor rows = ids.contiguous();
  const int64_t batch = rows.size(0), length = rows.size(1);
  layout_->starts = at::empty({batch, length}, at::kInt);
  layout_->lengths.resize(static_cast<size_t>(batch));
  const int32_t* id = rows.const_data_ptr<int32_t>();
  int32_t* start = layout_->starts.mutable_data_ptr<int32_t>();
  for (int64_t b = 0; b < batch; ++b, id += length, start += length) {
    auto& lengths = layout_->lengths[static_cast<size_t>(b)];
    for (int64_t t = 0; t < length; ++t) {
      const bool first = t == 0 || id[t] != id[t - 1];
      start[t] = first ? static_cast<int32_t>(t) : start[t - 1];
      if (first) lengths.push_back(0);
      ++lengths.back();
    }
  }
}

bool Documents::defined() const { return layout_->starts.defined(); }

const at::Tensor& Documents::starts() const {
  require(defined(), "Documents::starts() of a batch without documents");
  return layout_->starts;
}

const std::vector<std::vector<int64_t>>& Documents::lengths() const {
  require(defined(), "Documents::lengths() of a batch without documents");
  return layout_->lengths;
}

FirstKeys Documents::first_keys(const at::Device& device) const {
  if (!defined()) return {};
  const std::lock_guard lock(layout_->mutex);
  at::Tensor& copy = layout_->device_starts;
  if (!copy.defined() || copy.device() != device) copy = beside(layout_->starts, device);
  return {layout_->starts, copy};
}

FirstKeys Documents::block_first_keys(int64_t block, const at::Tensor& like) const {
  const int64_t batch = like.size(0), length = like.size(2);
  const std::lock_guard lock(layout_->mutex);
  for (const Layout::Blocks& known : layout_->blocks) {
    if (known.block == block && known.first.device.device() == like.device() &&
        known.first.host.size(0) == batch && known.first.host.size(1) == length)
      return known.first;
  }
  const at::Tensor host = at::empty({batch, length}, at::kInt);
  auto* first = host.mutable_data_ptr<int32_t>();
  const int32_t* documents = defined() ? layout_->starts.const_data_ptr<int32_t>() : nullptr;
  for (int64_t i = 0; i < batch * length; ++i) {
    const int64_t position = i % length, document = documents == nullptr ? 0 : documents[i];
    first[i] = static_cast<int32_t>(position - (position - document) % block);
  }
  layout_->blocks.push_back({block, {host, beside(host, like.device())}});
  return layout_->blocks.back().first;
}

}  // namespace polysketch
