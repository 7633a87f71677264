// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "attention/arithmetic.hpp"
#include "attention/ops/cpu_rows.hpp"
#include "attention/ops/polynomial.hpp"

namespace polysketch::ops {
namespace {

constexpr int64_t kDefaultTile = 128;

/// Tiles of the causal triangle, and which of them a document boundary cuts or empties.
class Tiling {
 public:
  Tiling(const at::Tensor& q, const FirstKeys& first, int64_t tile)
      : heads_(q.size(1)),
        length_(q.size(2)),
        tile_(tile > 0 ? tile : kDefaultTile),
        device_(q.device()) {
    if (!first.defined()) return;
    first_ = first.device;
    const int64_t batch = first_.size(0);
    const int32_t* key = first.host.const_data_ptr<int32_t>();
    for (int64_t row = 0; row < count(); ++row) {
      // they are non-decreasing along a row: those at the two ends bound the tile
      int64_t least = length_, most = 0;
      for (int64_t b = 0; b < batch; ++b) {
        least = std::min<int64_t>(least, key[b * length_ + begin(row)]);
        most = std::max<int64_t>(most, key[b * length_ + begin(row) + rows(row) - 1]);
      }
      least_first_.push_back(least);
      most_first_.push_back(most);
    }
  }

  int64_t count() const { return (length_ + tile_ - 1) / tile_; }
  int64_t begin(int64_t i) const { return i * tile_; }
  int64_t rows(int64_t i) const { return std::min(tile_, length_ - begin(i)); }
  /// First column tile that some query of the row tile sees.
  int64_t first_column(int64_t row) const {
    return first_.defined() ? least_first_[static_cast<size_t>(row)] / tile_ : 0;
  }

  /// Sets weights that must not exist to zero. weights: [B·H, rows, columns].
  void mask(at::Tensor& weights, int64_t row, int64_t column) const {
    const bool cut = first_.defined() && most_first_[static_cast<size_t>(row)] > begin(column);
    if (!cut && row != column) return;
    const auto options = at::TensorOptions().device(device_).dtype(at::kLong);
    const at::Tensor i =
        at::arange(begin(row), begin(row) + rows(row), options).unsqueeze(1);  // [rows, 1]
    // [1, columns]
    const at::Tensor j =
        at::arange(begin(column), begin(column) + rows(column), options).unsqueeze(0);
    at::Tensor hidden = j.gt(i);
    if (cut) {
      // [B, rows, 1]
      const at::Tensor key = first_.narrow(1, begin(row), rows(row)).unsqueeze(2);
      hidden = hidden.unsqueeze(0).logical_or(j.lt(key)).repeat_interleave(heads_, 0);
    }
    weights.masked_fill_(hidden, 0);
  }

 private:
  int64_t heads_, length_, tile_;
  at::Device device_;
  at::Tensor first_;
  std::vector<int64_t> least_first_, most_first_;
};

/// [B, H, T, D] -> [B·H, rows of tile i, D], in the type of the arithmetic.
at::Tensor block(const at::Tensor& x, const Tiling& tiling, int64_t i, at::ScalarType type) {
  const at::Tensor part = x.narrow(2, tiling.begin(i), tiling.rows(i));
  return part.to(type).reshape({x.size(0) * x.size(1), tiling.rows(i), x.size(3)});
}

void store(at::Tensor& target, const at::Tensor& rows, const Tiling& tiling, int64_t i) {
  target.narrow(2, tiling.begin(i), tiling.rows(i))
      .copy_(rows.view({target.size(0), target.size(1), tiling.rows(i), target.size(3)}));
}

/// A tile multiplies also the values of hidden positions, with weight zero, and 0·NaN is NaN. So
/// values that are not finite enter as zero, and the rows that see them are set to NaN afterwards.
/// Returns [B, H, T, D], the last such position at or before t, else -1.
at::Tensor last_not_finite(const at::Tensor& v) {
  const at::Tensor position =
      at::arange(v.size(2), at::TensorOptions().device(v.device()).dtype(at::kLong))
          .view({1, 1, -1, 1});
  return std::get<0>(
      at::where(v.isfinite(), at::scalar_tensor(-1, position.options()), position).cummax(2));
}

/// exp(log_scale_j − log_scale_i) for a tile, [B·H, rows, columns]: at most 1 where j <= i.
void scale(at::Tensor& weights, const PolynomialCall& call, const Tiling& tiling, int64_t row,
           int64_t column) {
  if (!call.log_scale.defined()) return;
  const at::Tensor flat = call.log_scale.reshape({-1, call.log_scale.size(2)});
  const at::Tensor i = flat.narrow(1, tiling.begin(row), tiling.rows(row)).unsqueeze(2);
  const at::Tensor j = flat.narrow(1, tiling.begin(column), tiling.rows(column)).unsqueeze(1);
  weights.mul_(j.sub(i).clamp_max_(0).exp_().to(weights.scalar_type()));
}

/// The layer norm in the type of the arithmetic, times an optional scale; x itself without a norm.
at::Tensor normed(const at::Tensor& x, const PolynomialCall& call, const at::Tensor& scale) {
  if (!call.gain.defined()) return x;
  const at::ScalarType type = wide_type(x);
  const at::Tensor y =
      at::layer_norm(x.to(type), {x.size(3)}, call.gain.to(type), call.bias.to(type), call.epsilon);
  return (scale.defined() ? y * scale.to(type) : y).to(x.scalar_type());
}

struct NormGradients {
  at::Tensor x, gain, bias;
};

NormGradients normed_backward(const at::Tensor& gradient, const at::Tensor& x,
                              const PolynomialCall& call, const at::Tensor& scale) {
  const at::ScalarType type = wide_type(x);
  const at::Tensor input = x.to(type).contiguous(), gain = call.gain.to(type),
                   bias = call.bias.to(type);
  const auto [y, mean, rstd] = at::native_layer_norm(input, {x.size(3)}, gain, bias, call.epsilon);
  const at::Tensor dy = scale.defined() ? gradient * scale.to(type) : gradient;
  auto [dx, dgain, dbias] = at::native_layer_norm_backward(
      dy.contiguous(), input, {x.size(3)}, mean, rstd, gain, bias, {true, true, true});
  return {dx, dgain, dbias};
}

PolynomialResult forward(const PolynomialCall& call) {
  const at::Tensor q = normed(call.q, call, {}), k = normed(call.k, call, call.key_scale);
  const at::Tensor& v = call.v;
  const Tiling tiling(q, call.first_keys, call.tile);
  const int64_t batch = q.size(0), heads = q.size(1), length = q.size(2), width = v.size(3);
  const at::ScalarType type = wide_type(q);
  const at::Tensor values = at::where(v.isfinite(), v, at::scalar_tensor(0, v.options()));
  PolynomialResult result{joined_like(v),
                          at::empty({batch, heads, length}, q.options().dtype(type))};
  for (int64_t i = 0; i < tiling.count(); ++i) {
    const at::Tensor queries = block(q, tiling, i, type);
    at::Tensor sum = at::zeros({batch * heads, tiling.rows(i), width}, queries.options());
    at::Tensor normaliser = at::ones({batch * heads, tiling.rows(i)}, queries.options());
    if (call.normaliser_offset.defined()) normaliser.mul_(call.normaliser_offset.to(type));
    for (int64_t j = tiling.first_column(i); j <= i; ++j) {
      at::Tensor weights =
          integer_power(at::bmm(queries, block(k, tiling, j, type).transpose(1, 2)), call.degree);
      scale(weights, call, tiling, i, j);
      tiling.mask(weights, i, j);
      sum.baddbmm_(weights, block(values, tiling, j, type));
      normaliser += weights.sum(2);
    }
    store(result.output, sum * inverse_or_zero(normaliser).unsqueeze(2), tiling, i);
    result.normaliser.narrow(2, tiling.begin(i), tiling.rows(i))
        .copy_(normaliser.view({batch, heads, tiling.rows(i)}));
  }
  const at::Tensor bad = last_not_finite(v);
  const at::Tensor first = call.first_keys.defined()
                               ? call.first_keys.device.view({batch, 1, length, 1})
                               : at::zeros({1}, bad.options());
  result.output.masked_fill_(bad.ge(first), std::numeric_limits<double>::quiet_NaN());
  return result;
}

// o = N / c with c = normaliser_offset + z: dN = dO / c, dz = -(dO·o) / c; dW_ij = dN_i·v_j + dz_i;
// dS = p·S^(p-1)·dW.
PolynomialGradients backward(const PolynomialCall& call, const PolynomialResult& result,
                             const at::Tensor& output_gradient) {
  const at::Tensor q = normed(call.q, call, {}), k = normed(call.k, call, call.key_scale);
  const Tiling tiling(q, call.first_keys, call.tile);
  const at::ScalarType type = wide_type(q);
  // [B, H, T, D]
  const at::Tensor sum_gradient =
      output_gradient.to(type) * inverse_or_zero(result.normaliser).unsqueeze(3);
  const at::Tensor row_gradient =
      (sum_gradient * result.output.to(type)).sum(3, /*keepdim=*/true).neg();  // [B, H, T, 1]
  const at::Tensor dq = at::zeros({q.size(0) * q.size(1), q.size(2), q.size(3)},
                                  q.options().dtype(type));  // [B·H, T, D]
  at::Tensor dk = joined_like(k.to(type)), dv = joined_like(call.v);
  for (int64_t j = 0; j < tiling.count(); ++j) {
    const at::Tensor keys = block(k, tiling, j, type), values = block(call.v, tiling, j, type);
    at::Tensor key_gradient = at::zeros_like(keys), value_gradient = at::zeros_like(values);
    for (int64_t i = j; i < tiling.count(); ++i) {
      if (tiling.first_column(i) > j) break;  // so do all later rows
      const at::Tensor queries = block(q, tiling, i, type),
                       dn = block(sum_gradient, tiling, i, type);
      const at::Tensor scores = at::bmm(queries, keys.transpose(1, 2));
      const at::Tensor odd_power = integer_power(scores, call.degree - 1);
      at::Tensor weights = odd_power * scores;
      scale(weights, call, tiling, i, j);
      tiling.mask(weights, i, j);
      value_gradient.baddbmm_(weights.transpose(1, 2), dn);
      at::Tensor ds = at::baddbmm(block(row_gradient, tiling, i, type), dn, values.transpose(1, 2));
      ds.mul_(odd_power).mul_(static_cast<double>(call.degree));
      scale(ds, call, tiling, i, j);
      tiling.mask(ds, i, j);
      dq.narrow(1, tiling.begin(i), tiling.rows(i)).baddbmm_(ds, keys);
      key_gradient.baddbmm_(ds.transpose(1, 2), queries);
    }
    store(dk, key_gradient, tiling, j);
    store(dv, value_gradient, tiling, j);
  }
  const at::ScalarType kept = call.q.scalar_type();
  if (!call.gain.defined()) return {dq.view(q.sizes()).to(kept), dk.to(kept), dv, {}, {}};
  const NormGradients from_q = normed_backward(dq.view(q.sizes()), call.q, call, {});
  const NormGradients from_k = normed_backward(dk, call.k, call, call.key_scale);
  return {from_q.x.to(kept), from_k.x.to(kept), dv,
          (from_q.gain + from_k.gain).to(call.gain.scalar_type()),
          (from_q.bias + from_k.bias).to(call.bias.scalar_type())};
}

bool fits(const PolynomialCall&) { return true; }

}  // namespace

const PolynomialImplementation polynomial_aten{{"aten", any_device, true}, fits, forward, backward};

}  // namespace polysketch::ops
