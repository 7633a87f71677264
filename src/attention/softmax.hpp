// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "attention/attention.hpp"

namespace polysketch {

/// softmax(QKᵀ/√D) V over the keys up to each query, one document a row.
at::Tensor causal_softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// Which implementation LibTorch takes for causal_softmax of tensors like q, [B, H, T, D]: "flash",
/// "math" and so on.
std::string softmax_backend(const at::Tensor& q);

/// Runs `one` on the documents of each row apart, [1, H, length, D], and puts the results together;
/// on everything at once without documents.
at::Tensor each_document(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>& one);

/// Rows of weights exp(q_i·k_j/√D) for the keys that `seen` [n, T] allows.
WeightRows softmax_weight_rows(const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& positions, const at::Tensor& seen);

/// o_i = sum_{j<=i} softmax_j(q_i·k_j / sqrt(D)) v_j, by the fastest attention that LibTorch has
/// for device and type.
class SoftmaxAttention : public Attention {
 public:
  explicit SoftmaxAttention(const AttentionShape& shape) : shape_(shape) {}
  /// With documents: one call for each document, so that no T x T mask ever exists and no pair is
  /// computed in vain.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Documents& documents = {}) override;
  AttentionCost cost(int64_t length) const override;
  Recurrence recurrence() const override { return Recurrence::growing; }
  std::unique_ptr<AttentionState> initial_state() const override;
  at::Tensor prefill(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) const override;
  WeightRows weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& positions) const override;

 private:
  AttentionShape shape_;
};

}  // namespace polysketch
