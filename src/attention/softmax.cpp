// SPDX-License-Identifier: Apache-2.0
#include "attention/softmax.hpp"

#include <ATen/ATen.h>

#include "attention/pair_cost.hpp"

namespace polysketch {
namespace {

at::Tensor causal_softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true);
}

// [B, H, T, D] -> the documents of each row, [1, H, length, D]. Splitting instead of narrowing: its backward is one concatenation,
// while each narrow would fill a gradient of full length with zeros.
std::vector<at::Tensor> split_documents(const at::Tensor& x, const std::vector<std::vector<int64_t>>& lengths) {
  std::vector<at::Tensor> parts;
  const auto rows = x.split(1, 0);
  for (size_t b = 0; b < rows.size(); ++b) {
    for (at::Tensor& part : rows[b].split_with_sizes(lengths[b], 2)) parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace

at::Tensor SoftmaxAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  if (!documents.defined()) return causal_softmax(q, k, v);
  const auto& lengths = documents.lengths();
  const auto qs = split_documents(q, lengths), ks = split_documents(k, lengths), vs = split_documents(v, lengths);
  std::vector<at::Tensor> rows;
  size_t next = 0;
  for (const auto& row : lengths) {
    std::vector<at::Tensor> parts;  // as [1, length, H, D], so that the result keeps the heads side by side in memory
    for (size_t i = 0; i < row.size(); ++i, ++next) parts.push_back(causal_softmax(qs[next], ks[next], vs[next]).transpose(1, 2));
    rows.push_back(at::cat(parts, 1));
  }
  return at::cat(rows, 0).transpose(1, 2);
}

AttentionCost SoftmaxAttention::cost(int64_t length) const {
  AttentionCost cost = pair_attention_cost(shape_, length);
  cost.saved_floats += shape_.heads * length;  // log-sum-exp
  return cost;
}

}  // namespace polysketch
