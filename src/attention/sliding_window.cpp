// SPDX-License-Identifier: Apache-2.0
#include "attention/sliding_window.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "attention/recurrent.hpp"
#include "attention/softmax.hpp"

namespace polysketch {
namespace {

/// Whether query i, position `first` + i, sees key j, both counted from where the keys begin.
/// [queries, keys]
at::Tensor visible(int64_t queries, int64_t first, int64_t keys, int64_t window,
                   const at::Device& device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor i = at::arange(first, first + queries, options).unsqueeze(1),
                   j = at::arange(keys, options).unsqueeze(0);
  return j.le(i).logical_and(j.gt(i - window));
}

/// [B, H, n·window, D] -> [B·n, H, window, D]
at::Tensor fold(const at::Tensor& x, int64_t window) {
  return x.view({x.size(0), x.size(1), -1, window, x.size(3)}).transpose(1, 2).flatten(0, 1);
}

/// One document: [B, H, T, D].
at::Tensor one_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        int64_t window) {
  const int64_t batch = q.size(0), heads = q.size(1), length = q.size(2), width = q.size(3);
  if (length <= window) return causal_softmax(q, k, v);
  const at::Tensor head =
      causal_softmax(q.narrow(2, 0, window), k.narrow(2, 0, window), v.narrow(2, 0, window));
  const int64_t later = (length - 1) / window, padding = (later + 1) * window - length;
  const auto padded = [&](const at::Tensor& x) {
    return at::constant_pad_nd(x, {0, 0, 0, padding}, 0).contiguous();
  };
  const at::Tensor all_k = padded(k), all_v = padded(v);
  const auto both = [&](const at::Tensor& x) {
    return at::cat({fold(x.narrow(2, 0, later * window).contiguous(), window),
                    fold(x.narrow(2, window, later * window).contiguous(), window)},
                   2);
  };
  const at::Tensor queries = fold(padded(q).narrow(2, window, later * window).contiguous(), window);
  const at::Tensor mask = visible(window, window, 2 * window, window, q.device());
  const at::Tensor rows = at::scaled_dot_product_attention(queries, both(all_k), both(all_v), mask);
  const at::Tensor tail = rows.view({batch, later, heads, window, width})
                              .transpose(2, 3)
                              .reshape({batch, later * window, heads, width});
  return at::cat({head.transpose(1, 2), tail.narrow(1, 0, length - window)}, 1).transpose(1, 2);
}

}  // namespace

at::Tensor SlidingWindowAttention::forward(const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  return each_document(q, k, v, documents,
                       [this](const at::Tensor& qs, const at::Tensor& ks, const at::Tensor& vs) {
                         return one_document(qs, ks, vs, window_);
                       });
}

AttentionCost SlidingWindowAttention::cost(int64_t length) const {
  const double t = static_cast<double>(length), w = static_cast<double>(std::min(window_, length));
  const double per_pair = 4.0 * static_cast<double>(shape_.heads * shape_.head_width);
  AttentionCost cost;
  cost.forward = {per_pair * (length <= window_ ? t * t : 2 * w * t),
                  per_pair * (w * (w + 1) / 2 + (t - w) * w)};
  cost.backward = {2 * cost.forward.full, 2 * cost.forward.causal};
  // keys and values are laid out twice
  cost.saved_elements = (length <= window_ ? 4 : 7) * shape_.heads * length * shape_.head_width;
  cost.saved_floats = shape_.heads * length;
  return cost;
}

std::unique_ptr<AttentionState> SlidingWindowAttention::initial_state() const {
  return std::make_unique<KeyValueState>();
}

at::Tensor SlidingWindowAttention::prefill(AttentionState& state, const at::Tensor& q,
                                           const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  auto& seen = dynamic_cast<KeyValueState&>(state);
  at::Tensor output = at::empty_like(q);
  for (int64_t begin = 0; begin < q.size(2);) {
    const int64_t n = std::min(window_, q.size(2) - begin);
    // Old keys go when a window of them has gathered: a copy of the window a window of tokens.
    if (seen.keys.count() >= 2 * window_) {
      seen.keys.keep_last(window_ - 1);
      seen.values.keep_last(window_ - 1);
    }
    const int64_t before = seen.keys.count();
    seen.keys.append(k.narrow(2, begin, n));
    seen.values.append(v.narrow(2, begin, n));
    const int64_t first = std::max<int64_t>(0, before - window_ + 1), keys = before + n - first;
    const at::Tensor mask =
        n == 1 ? at::Tensor() : visible(n, before - first, keys, window_, q.device());
    const std::optional<at::Tensor> given = mask.defined() ? std::optional(mask) : std::nullopt;
    output.narrow(2, begin, n)
        .copy_(at::scaled_dot_product_attention(q.narrow(2, begin, n),
                                                seen.keys.rows().narrow(2, first, keys),
                                                seen.values.rows().narrow(2, first, keys), given));
    begin += n;
  }
  return output;
}

WeightRows SlidingWindowAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& positions) const {
  const at::Tensor too_old = seen_keys(positions - window_, k.size(2), k);
  return softmax_weight_rows(q, k, positions,
                             seen_keys(positions, k.size(2), k).logical_and(too_old.logical_not()));
}

}  // namespace polysketch
