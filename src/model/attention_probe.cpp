// SPDX-License-Identifier: Apache-2.0
#include "model/attention_probe.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "support/philox.hpp"

namespace polysketch {

AttentionProbe::AttentionProbe(uint64_t seed, int64_t step, int64_t layers, int64_t heads,
                               int64_t batch, int64_t length, const Documents& documents)
    : length_(length), layers_(static_cast<size_t>(layers)) {
  Philox random(seed, RandomPurpose::diagnostics, static_cast<uint64_t>(step));
  const auto below = [&](int64_t bound) {
    return static_cast<int64_t>(random.bounded(static_cast<uint64_t>(bound)));
  };
  row_ = below(batch);
  const int64_t somewhere = below(length);
  if (documents.defined()) {
    for (const int64_t rows : documents.lengths().at(static_cast<size_t>(row_))) {
      length_ = rows;
      if (somewhere < first_ + rows) break;
      first_ += rows;
    }
  }
  // One position from each of n equal parts, so that early and late queries are both there.
  const int64_t count = std::min(kQueries, length_);
  positions_ = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * length_ / count, end = (i + 1) * length_ / count;
    positions_.mutable_data_ptr<int64_t>()[i] = begin + below(end - begin);
  }
  for (Layer& layer : layers_) layer.head = below(heads);
}

void AttentionProbe::take(size_t layer, const at::Tensor& q, const at::Tensor& k) {
  Layer& into = layers_.at(layer);
  if (into.keys.defined()) return;
  const at::NoGradGuard no_grad;
  const auto document = [&](const at::Tensor& x) {
    return x.detach().narrow(0, row_, 1).narrow(1, into.head, 1).narrow(2, first_, length_);
  };
  into.queries = document(q).index_select(2, positions_.to(q.device()));
  into.keys = document(k).clone(at::MemoryFormat::Contiguous);
}

}  // namespace polysketch
