// SPDX-License-Identifier: Apache-2.0
#include "attention/recurrent.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "attention/arithmetic.hpp"
#include "attention/ops/chunk_states.hpp"

namespace polysketch {
namespace {

constexpr int64_t kWeights = int64_t{1} << 24;  // of a piece of queries, all heads together: 64 MiB

at::Tensor heads_flat(const at::Tensor& x) { return x.flatten(0, 1); }

/// Rows of the open block and of the pieces that are its queries, flat over heads.
struct Piece {
  at::Tensor a, q;       ///< [B·H, m, ·] queries; a undefined: nothing outside the block
  at::Tensor log_scale;  ///< [B·H, m] or undefined
  int64_t first = 0;     ///< row of the open block that the first query is
};

/// Adds what the queries see inside the open block to sum [B·H, m, E + 1].
void add_near(const LinearState& state, const LinearAttention& call, const Piece& piece,
              at::Tensor& sum) {
  const int64_t m = piece.q.size(1), seen = piece.first + m;
  const at::Tensor keys =
      heads_flat((call.q.defined() ? state.k : state.b).rows()).narrow(1, 0, seen);
  const at::Tensor values = heads_flat(state.v.rows()).narrow(1, 0, seen);
  at::Tensor weights = integer_power(at::bmm(piece.q, keys.transpose(1, 2)),
                                     call.q.defined() ? call.local_degree : call.power);
  if (piece.log_scale.defined()) {
    const at::Tensor scale = heads_flat(state.log_scale.rows()).narrow(1, 0, seen).squeeze(2);
    weights = weights * scale.unsqueeze(1).sub(piece.log_scale.unsqueeze(2)).clamp_max_(0).exp_();
  }
  if (m > 1) weights = weights.tril(piece.first);
  sum.add_(at::bmm(weights, values));
}

void add_far(const LinearState& state, const LinearAttention& call, const Piece& piece,
             at::Tensor& sum) {
  at::Tensor far = at::bmm(ops::expand_features(piece.a, call.power), state.sums);
  if (piece.log_scale.defined())
    far.mul_(state.sums_scale.sub(piece.log_scale.unsqueeze(2)).exp_());
  sum.add_(far);
}

/// The open block is full: its keys go into the sums.
void close_block(LinearState& state, const LinearAttention& call) {
  if (call.a.defined()) {
    at::Tensor values = heads_flat(state.v.rows());
    const at::Tensor b = heads_flat(state.b.rows());
    if (call.log_scale.defined()) {
      const at::Tensor scale = heads_flat(state.log_scale.rows());  // [B·H, b, 1]
      const at::Tensor last = scale.narrow(1, scale.size(1) - 1, 1).clone();
      values = values * scale.sub(last).exp_();
      if (state.sums.defined()) state.sums.mul_(state.sums_scale.sub(last).exp_());
      state.sums_scale = last;
    }
    const int64_t rows = std::max<int64_t>(
        1, kWeights / (b.size(0) * b.size(2) * (call.power == 2 ? b.size(2) : 1)));
    for (int64_t begin = 0; begin < b.size(1); begin += rows) {
      const int64_t n = std::min(rows, b.size(1) - begin);
      const at::Tensor added =
          at::bmm(ops::expand_features(b.narrow(1, begin, n), call.power).transpose(1, 2),
                  values.narrow(1, begin, n));
      state.sums = state.sums.defined() ? state.sums.add_(added) : added;
    }
  }
  for (GrowingRows* rows : {&state.b, &state.k, &state.v, &state.log_scale}) rows->keep_last(0);
}

}  // namespace

void GrowingRows::append(const at::Tensor& rows) {
  const int64_t count = rows.size(2), needed = count_ + count;
  if (!store_.defined() || needed > store_.size(2)) {
    auto sizes = rows.sizes().vec();
    sizes[2] = std::max<int64_t>(needed, store_.defined() ? 2 * store_.size(2) : 64);
    const at::Tensor larger = at::empty(sizes, rows.options());
    if (count_ > 0) larger.narrow(2, 0, count_).copy_(this->rows());
    store_ = larger;
  }
  store_.narrow(2, count_, count).copy_(rows);
  count_ = needed;
}

void GrowingRows::keep_last(int64_t count) {
  if (count >= count_) return;
  if (count > 0) store_.narrow(2, 0, count).copy_(store_.narrow(2, count_ - count, count).clone());
  count_ = count;
}

int64_t LinearState::bytes() const {
  int64_t all = b.bytes() + k.bytes() + v.bytes() + log_scale.bytes();
  for (const at::Tensor& x : {sums, sums_scale, largest})
    all += x.defined() ? static_cast<int64_t>(x.nbytes()) : 0;
  return all;
}

at::Tensor linear_attention_next(LinearState& state, const LinearAttention& call) {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(call.v);
  const int64_t batch = call.v.size(0), heads = call.v.size(1), length = call.v.size(2),
                width = call.v.size(3);
  const auto part = [&](const at::Tensor& x, int64_t begin, int64_t n) {
    return x.narrow(2, begin, n).to(type);
  };
  at::Tensor output = at::empty(call.v.sizes(), call.v.options());
  for (int64_t begin = 0; begin < length;) {
    const int64_t open = state.v.count(),
                  most = std::max<int64_t>(
                      1, kWeights / (batch * heads * std::min(call.block, open + length)));
    const int64_t n = std::min({length - begin, call.block - open, most});
    if (call.a.defined()) state.b.append(part(call.b, begin, n));
    if (call.q.defined()) state.k.append(part(call.k, begin, n));
    state.v.append(at::cat(
        {part(call.v, begin, n), at::ones({batch, heads, n, 1}, call.v.options().dtype(type))}, 3));
    if (call.log_scale.defined())
      state.log_scale.append(call.log_scale.narrow(2, begin, n).unsqueeze(3));

    Piece piece;
    if (call.a.defined()) piece.a = heads_flat(part(call.a, begin, n));
    piece.q = call.q.defined() ? heads_flat(part(call.q, begin, n)) : piece.a;
    if (call.log_scale.defined()) piece.log_scale = heads_flat(call.log_scale.narrow(2, begin, n));
    piece.first = open;
    at::Tensor sum = at::zeros({batch * heads, n, width + 1}, call.v.options().dtype(type));
    add_near(state, call, piece, sum);
    if (state.sums.defined()) add_far(state, call, piece, sum);
    at::Tensor divisor = sum.narrow(2, width, 1) + call.normaliser_offset;
    if (call.divisor_floor > 0) divisor = raised_divisor(divisor, call.divisor_floor);
    const at::Tensor rows = inverse_or_zero(divisor) * sum.narrow(2, 0, width);
    output.narrow(2, begin, n).copy_(rows.view({batch, heads, n, width}));
    if (state.v.count() == call.block) close_block(state, call);
    begin += n;
  }
  return output;
}

}  // namespace polysketch
