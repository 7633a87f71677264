// SPDX-License-Identifier: Apache-2.0
#include "attention/softmax.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "attention/pair_cost.hpp"
#include "attention/recurrent.hpp"

namespace polysketch {
namespace {

// queries that meet a cache at one time, each with a row of a mask
constexpr int64_t kPrefillRows = 1024;

// [B, H, T, D] -> the documents of each row, [1, H, length, D]. Splitting instead of narrowing: its
// backward is one concatenation, while each narrow would fill a gradient of full length with zeros.
std::vector<at::Tensor> split_documents(const at::Tensor& x,
                                        const std::vector<std::vector<int64_t>>& lengths) {
  std::vector<at::Tensor> parts;
  const auto rows = x.split(1, 0);
  for (size_t b = 0; b < rows.size(); ++b) {
    for (at::Tensor& part : rows[b].split_with_sizes(lengths[b], 2))
      parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace

at::Tensor causal_softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0,
                                          /*is_causal=*/true);
}

std::string softmax_backend(const at::Tensor& q) {
  constexpr std::array names{"math", "flash", "memory-efficient", "cuDNN"};
  const int64_t choice = at::_fused_sdp_choice(q, q, q, {}, 0.0, /*is_causal=*/true);
  return choice >= 0 && choice < static_cast<int64_t>(names.size())
             ? names[static_cast<size_t>(choice)]
             : "other";
}

at::Tensor each_document(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>& one) {
  if (!documents.defined()) return one(q, k, v);
  const auto& lengths = documents.lengths();
  const auto qs = split_documents(q, lengths), ks = split_documents(k, lengths),
             vs = split_documents(v, lengths);
  std::vector<at::Tensor> rows;
  size_t next = 0;
  for (const auto& row : lengths) {
    // as [1, length, H, D], so that the result keeps the heads side by side in memory
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < row.size(); ++i, ++next)
      parts.push_back(one(qs[next], ks[next], vs[next]).transpose(1, 2));
    rows.push_back(at::cat(parts, 1));
  }
  return at::cat(rows, 0).transpose(1, 2);
}

at::Tensor SoftmaxAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  return each_document(q, k, v, documents, causal_softmax);
}

AttentionCost SoftmaxAttention::cost(int64_t length) const {
  AttentionCost cost = pair_attention_cost(shape_, length);
  cost.saved_floats += shape_.heads * length;  // log-sum-exp
  return cost;
}

std::unique_ptr<AttentionState> SoftmaxAttention::initial_state() const {
  return std::make_unique<KeyValueState>();
}

at::Tensor SoftmaxAttention::prefill(AttentionState& state, const at::Tensor& q,
                                     const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  auto& seen = dynamic_cast<KeyValueState&>(state);
  const int64_t before = seen.keys.count(), length = q.size(2);
  seen.keys.append(k);
  seen.values.append(v);
  if (before == 0) return causal_softmax(q, k, v);
  if (length == 1) return at::scaled_dot_product_attention(q, seen.keys.rows(), seen.values.rows());
  at::Tensor output = at::empty_like(q);
  for (int64_t begin = 0; begin < length; begin += kPrefillRows) {
    const int64_t n = std::min(kPrefillRows, length - begin), keys = before + begin + n;
    const at::Tensor mask = at::ones({n, keys}, q.options().dtype(at::kBool)).tril(before + begin);
    output.narrow(2, begin, n)
        .copy_(at::scaled_dot_product_attention(q.narrow(2, begin, n),
                                                seen.keys.rows().narrow(2, 0, keys),
                                                seen.values.rows().narrow(2, 0, keys), mask));
  }
  return output;
}

WeightRows softmax_weight_rows(const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& positions, const at::Tensor& seen) {
  const at::NoGradGuard no_grad;
  const at::Tensor scores =
      (dot_products(q, k) / std::sqrt(static_cast<double>(q.size(3))))
          .masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  WeightRows rows;
  rows.positions = positions;
  rows.weights = scores.exp();
  rows.divisor = rows.weights.sum(3);
  rows.largest_score = scores.amax(3);
  return rows;
}

WeightRows SoftmaxAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& positions) const {
  return softmax_weight_rows(q, k, positions, seen_keys(positions, k.size(2), k));
}

}  // namespace polysketch
