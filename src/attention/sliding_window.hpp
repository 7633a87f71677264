// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "attention/attention.hpp"

namespace polysketch {

/// Softmax attention over the last `window` positions, the query's own included (P App. J), by
/// LibTorch's attention on blocks of `window` queries and the two blocks of keys that they can see:
/// T·window time, memory linear in T.
class SlidingWindowAttention : public Attention {
 public:
  SlidingWindowAttention(int64_t window, const AttentionShape& shape)
      : window_(window), shape_(shape) {}
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  int64_t window_;
  AttentionShape shape_;
};

}  // namespace polysketch
