// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>

#include "attention/arithmetic.hpp"
#include "attention/ops/chunk_states.hpp"

namespace polysketch::ops {
namespace {

// of one expansion on the CPU: half an L2 cache in bf16
constexpr int64_t kExpandedElements = 256 * 1024;
constexpr int64_t kExpandedOnDevice = int64_t{1} << 26;

/// One document of a group of heads. All tensors are [G, T, ·].
struct Group {
  at::Tensor a, b, v, log_scale;
  int64_t power = 0, block = 0;

  int64_t length() const { return a.size(1); }
  int64_t width() const { return a.size(2); }
  int64_t blocks() const { return (length() + block - 1) / block; }
  int64_t begin(int64_t i) const { return i * block; }
  int64_t rows(int64_t i) const { return std::min(block, length() - begin(i)); }
  int64_t features() const { return power == 2 ? width() * width() : width(); }
  int64_t slice_rows() const {
    const int64_t budget = a.is_cpu() ? kExpandedElements : kExpandedOnDevice;
    return std::max<int64_t>(16, budget / (features() * a.size(0)));
  }
};

/// Gradient of x from that of expand_features(x), given as [G, n, R²] and symmetric in its two
/// indices.
at::Tensor expand_backward(const at::Tensor& gradient, const at::Tensor& x, int64_t power) {
  if (power == 1) return gradient;
  const int64_t g = x.size(0), n = x.size(1), r = x.size(2);
  return at::bmm(gradient.reshape({g * n, r, r}), x.reshape({g * n, r, 1})).view({g, n, r}).mul_(2);
}

/// [v, 1] in the type of the products.
at::Tensor with_ones(const at::Tensor& v) {
  return at::cat({v, at::ones({v.size(0), v.size(1), 1}, v.options())}, 2);
}

void for_each_slice(int64_t begin, int64_t end, int64_t rows,
                    const std::function<void(int64_t, int64_t)>& work) {
  for (int64_t at = begin; at < end; at += rows) work(at, std::min(rows, end - at));
}

/// The log-scale that the state behind block i is relative to: that of its last key.
at::Tensor scale_behind(const Group& group, int64_t i) {
  return group.log_scale.select(1, group.begin(i) + group.rows(i) - 1).view({-1, 1, 1});
}

/// exp(log_scale_i − log_scale_state) of rows as factors; queries take the inverse.
at::Tensor key_factor(const Group& group, int64_t i, int64_t from, int64_t n) {
  return group.log_scale.narrow(1, from, n).unsqueeze(2).sub(scale_behind(group, i)).exp_();
}
at::Tensor query_factor(const Group& group, int64_t i, int64_t from, int64_t n) {
  return scale_behind(group, i - 1).sub(group.log_scale.narrow(1, from, n).unsqueeze(2)).exp_();
}

/// state [G, R^power, D + 1] of the keys up to and including block i, from that before it.
void add_block(at::Tensor& state, const Group& group, int64_t i) {
  if (group.log_scale.defined() && i > 0)
    state.mul_(scale_behind(group, i - 1).sub(scale_behind(group, i)).exp_());
  for_each_slice(
      group.begin(i), group.begin(i) + group.rows(i), group.slice_rows(),
      [&](int64_t at, int64_t n) {
        at::Tensor values = with_ones(group.v.narrow(1, at, n));
        if (group.log_scale.defined())
          values = (values * key_factor(group, i, at, n)).to(values.scalar_type());
        state.add_(at::bmm(expand_features(group.b.narrow(1, at, n), group.power).transpose(1, 2),
                           values));
      });
}

at::Tensor empty_state(const Group& group) {
  return at::zeros({group.a.size(0), group.features(), group.v.size(2) + 1},
                   group.a.options().dtype(wide_type(group.a)));
}

/// What later blocks read, for the queries of blocks 1, 2, …: `read` gets the state before block i,
/// and from which row how many of it.
void for_each_reading(
    const Group& group,
    const std::function<void(const at::Tensor&, int64_t, int64_t, int64_t)>& read) {
  at::Tensor state = empty_state(group);
  for (int64_t i = 1; i < group.blocks(); ++i) {
    add_block(state, group, i - 1);
    const at::Tensor rounded = state.to(group.a.scalar_type());
    for_each_slice(group.begin(i), group.begin(i) + group.rows(i), group.slice_rows(),
                   [&](int64_t at, int64_t n) { read(rounded, i, at, n); });
  }
}

void group_forward(const Group& group, at::Tensor sum, at::Tensor row_sum) {
  const int64_t width = group.v.size(2);
  for_each_reading(group, [&](const at::Tensor& state, int64_t i, int64_t at, int64_t n) {
    at::Tensor seen = at::bmm(expand_features(group.a.narrow(1, at, n), group.power), state)
                          .to(sum.scalar_type());
    if (group.log_scale.defined()) seen.mul_(query_factor(group, i, at, n));
    sum.narrow(1, at, n).copy_(seen.narrow(2, 0, width));
    row_sum.narrow(1, at, n).copy_(seen.select(2, width));
  });
  // Sums of rounded products can fall a little below the zero that squares cannot.
  if (group.power == 2) row_sum.clamp_min_(0);
}

/// Gradients with respect to the queries, from the states in order.
void group_query_gradient(const Group& group, const at::Tensor& cotangent, at::Tensor da) {
  for_each_reading(group, [&](const at::Tensor& state, int64_t i, int64_t at, int64_t n) {
    at::Tensor dn = cotangent.narrow(1, at, n);
    if (group.log_scale.defined()) dn = dn * query_factor(group, i, at, n);
    // [G, n, R^power]
    const at::Tensor dphi = at::bmm(dn.to(group.a.scalar_type()), state.transpose(1, 2));
    da.narrow(1, at, n).copy_(expand_backward(dphi, group.a.narrow(1, at, n), group.power));
  });
}

/// Gradients with respect to keys and values, from the states of the cotangents in reverse order.
void group_key_gradient(const Group& group, const at::Tensor& cotangent, at::Tensor db,
                        at::Tensor dv) {
  // sum over later queries of phi(a_i) cotangent_i, relative to the scale behind the block
  at::Tensor state = empty_state(group);
  const int64_t width = group.v.size(2);
  for (int64_t i = group.blocks() - 2; i >= 0; --i) {
    const int64_t next = i + 1;
    if (group.log_scale.defined())
      state.mul_(scale_behind(group, i).sub(scale_behind(group, next)).exp_());
    for_each_slice(
        group.begin(next), group.begin(next) + group.rows(next), group.slice_rows(),
        [&](int64_t at, int64_t n) {
          at::Tensor dn = cotangent.narrow(1, at, n);
          if (group.log_scale.defined()) dn = dn * query_factor(group, next, at, n);
          state.add_(at::bmm(expand_features(group.a.narrow(1, at, n), group.power).transpose(1, 2),
                             dn.to(group.a.scalar_type())));
        });
    const at::Tensor rounded = state.to(group.a.scalar_type());
    const at::Tensor transposed = rounded.transpose(1, 2);
    for_each_slice(group.begin(i), group.begin(i) + group.rows(i), group.slice_rows(),
                   [&](int64_t at, int64_t n) {
                     const at::Tensor keys = group.b.narrow(1, at, n);
                     at::Tensor values = with_ones(group.v.narrow(1, at, n));
                     at::Tensor dvalues =
                         at::bmm(expand_features(keys, group.power), rounded.narrow(2, 0, width));
                     if (group.log_scale.defined()) {
                       const at::Tensor factor = key_factor(group, i, at, n);
                       values = (values * factor).to(values.scalar_type());
                       dvalues = dvalues * factor;
                     }
                     dv.narrow(1, at, n).copy_(dvalues);
                     db.narrow(1, at, n).copy_(
                         expand_backward(at::bmm(values, transposed), keys, group.power));
                   });
  }
}

/// Some rows of some heads of a [B·H, T, …] tensor.
struct Slice {
  int64_t first, heads, begin, rows;
  at::Tensor operator()(const at::Tensor& x) const {
    return x.narrow(0, first, heads).narrow(1, begin, rows);
  }
};

/// Runs `work` on every document longer than a block: single heads over threads on the CPU, on a
/// device the heads of a row, or of all rows where every row is one document.
void for_each_group(const ChunkStatesCall& call,
                    const std::function<void(const Group&, const Slice&)>& work) {
  const int64_t batch = call.a.size(0), heads = call.a.size(1), length = call.a.size(2);
  const auto flat = [&](const at::Tensor& x) {
    return x.reshape({batch * heads, length, x.size(3)});
  };
  const at::Tensor a = flat(call.a), b = flat(call.b), v = flat(call.v);
  const at::Tensor scale =
      call.log_scale.defined() ? call.log_scale.reshape({batch * heads, length}) : at::Tensor();
  const auto run = [&](int64_t first, int64_t count) {
    for (const auto& [begin, rows] : long_documents(call, first / heads)) {
      const Slice slice{first, count, begin, rows};
      work({slice(a), slice(b), slice(v), scale.defined() ? slice(scale) : at::Tensor(), call.power,
            call.block},
           slice);
    }
  };
  if (call.a.is_cpu()) {
    at::parallel_for(0, batch * heads, 1, [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;  // does not reach other threads by itself
      for (int64_t head = begin; head < end; ++head) run(head, 1);
    });
  } else if (call.first_keys.defined()) {
    for (int64_t row = 0; row < batch; ++row) run(row * heads, heads);
  } else {
    run(0, batch * heads);
  }
}

bool fits(const ChunkStatesCall&) { return true; }

void forward(const ChunkStatesCall& call, const ChunkStatesResult& result) {
  const at::Tensor sum = result.sum.flatten(0, 1), row_sum = result.row_sum.flatten(0, 1);
  for_each_group(call, [&](const Group& group, const Slice& slice) {
    group_forward(group, slice(sum), slice(row_sum));
  });
}

void backward(const ChunkStatesCall& call, const at::Tensor& sum_gradient,
              const at::Tensor& row_sum_gradient, const ChunkStatesGradients& back) {
  // [B·H, T, D + 1]
  const at::Tensor cotangent =
      at::cat({sum_gradient, row_sum_gradient.unsqueeze(3)}, 3).flatten(0, 1);
  const at::Tensor da = back.a.flatten(0, 1), db = back.b.flatten(0, 1), dv = back.v.flatten(0, 1);
  for_each_group(call, [&](const Group& group, const Slice& slice) {
    group_query_gradient(group, slice(cotangent), slice(da));
    group_key_gradient(group, slice(cotangent), slice(db), slice(dv));
  });
}

}  // namespace

const ChunkStatesImplementation chunk_states_aten{
    {"aten", any_device, true}, fits, forward, backward};

}  // namespace polysketch::ops
