// SPDX-License-Identifier: Apache-2.0
#include "model/ops.hpp"

#include <ATen/Parallel.h>

#include <cmath>

#include "attention/ops/choice.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "model/ops/row_work.hpp"
#include "support/error.hpp"
#include "support/philox.hpp"

namespace polysketch::ops {
namespace {

namespace k = polysketch::kernels;

// Norm, rotation, GLU, embedding and sums: the CPU kernels that work on rows, or LibTorch.
const Operation row_operations{
    "rows",
    {{"cpu", [](const at::Device& device) { return device.is_cpu(); }, true},
     {"aten", any_device, true}}};

bool use_kernels(const at::Tensor& tensor) {
  return tensor.is_cpu() && row_operations.permits("cpu");
}

// With delta and sum: normalises x + delta and leaves that in sum.
Normalized norm_with_kernels(const at::Tensor& x, const at::Tensor* delta, const at::Tensor* sum,
                             const at::Tensor& gain, const at::Tensor& bias,
                             at::ScalarType compute) {
  const int64_t rows = x.size(0), width = x.size(1);
  Normalized out{at::empty({rows, width}, x.options().dtype(compute)),
                 at::empty({rows}, x.options()), at::empty({rows}, x.options())};
  with_types(x.scalar_type(), compute, [&]<class S, class A>() {
    k::LayerNormForward<S, A> a{};
    a.x = pointer<S>(x);
    if (delta != nullptr) {
      a.delta = pointer<A>(*delta);
      a.sum = pointer<S>(*sum);
    }
    a.gain = pointer<k::Real<S>>(gain);
    a.bias = pointer<k::Real<S>>(bias);
    a.y = pointer<A>(out.y);
    a.mean = pointer<k::Real<S>>(out.mean);
    a.rstd = pointer<k::Real<S>>(out.rstd);
    a.width = width;
    a.epsilon = kLayerNormEpsilon;
    at::parallel_for(0, rows, grain(width),
                     [&](int64_t begin, int64_t end) { k::layer_norm_forward(a, begin, end); });
  });
  return out;
}

}  // namespace

Normalized layer_norm(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& bias,
                      at::ScalarType compute) {
  if (use_kernels(x)) return norm_with_kernels(x, nullptr, nullptr, gain, bias, compute);
  auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, gain, bias, kLayerNormEpsilon);
  return {y.to(compute), mean.view({-1}), rstd.view({-1})};
}

std::pair<at::Tensor, Normalized> add_layer_norm(const at::Tensor& x, const at::Tensor& delta,
                                                 const at::Tensor& gain, const at::Tensor& bias,
                                                 bool in_place) {
  if (use_kernels(x)) {
    at::Tensor sum = in_place ? x : at::empty_like(x);
    return {sum, norm_with_kernels(x, &delta, &sum, gain, bias, delta.scalar_type())};
  }
  at::Tensor sum = in_place ? x.add_(delta) : x.add(delta);
  return {sum, layer_norm(sum, gain, bias, delta.scalar_type())};
}

at::Tensor layer_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                               const Normalized& normalized, const at::Tensor& gain,
                               at::Tensor& d_residual, at::Tensor d_gain, at::Tensor d_bias) {
  const int64_t rows = x.size(0), width = x.size(1);
  if (!use_kernels(x)) {
    auto [dx, dg, db] = at::native_layer_norm_backward(
        dy.to(x.scalar_type()), x, {width}, normalized.mean.view({-1, 1}),
        normalized.rstd.view({-1, 1}), gain, d_bias, {true, true, true});
    d_residual.add_(dx);
    d_gain.add_(dg);
    d_bias.add_(db);
    return d_residual.to(dy.scalar_type());
  }
  const bool copy = dy.scalar_type() != x.scalar_type();
  at::Tensor result = copy ? at::empty_like(dy) : d_residual;
  const int64_t pieces = pieces_for(rows);
  at::Tensor sums = at::zeros({2, pieces, width}, gain.options());
  with_types(x.scalar_type(), dy.scalar_type(), [&]<class S, class A>() {
    using R = k::Real<S>;
    k::LayerNormBackward<S, A> a{};
    a.dy = pointer<A>(dy);
    a.x = pointer<S>(x);
    a.gain = pointer<R>(gain);
    a.mean = pointer<R>(normalized.mean);
    a.rstd = pointer<R>(normalized.rstd);
    a.dresidual = pointer<S>(d_residual);
    a.dx = pointer<S>(d_residual);
    a.dx_copy = copy ? pointer<A>(result) : nullptr;
    a.width = width;
    R* partial = pointer<R>(sums);
    in_pieces(rows, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
      k::LayerNormBackward<S, A> mine = a;
      mine.dgain = partial + piece * width;
      mine.dbias = partial + (pieces + piece) * width;
      k::layer_norm_backward(mine, begin, end);
    });
  });
  at::Tensor total = sums.sum(1);
  d_gain.add_(total[0]);
  d_bias.add_(total[1]);
  return result;
}

at::Tensor glu(const at::Tensor& pre) {
  const int64_t rows = pre.size(0), hidden = pre.size(1) / 2;
  if (!use_kernels(pre))
    return at::mul(pre.narrow(1, 0, hidden), at::gelu(pre.narrow(1, hidden, hidden), "tanh"));
  at::Tensor out = at::empty({rows, hidden}, pre.options());
  with_type(pre.scalar_type(), [&]<class A>() {
    const k::GluForward<A> a{pointer<A>(pre), pointer<A>(out), hidden};
    at::parallel_for(0, rows, grain(hidden),
                     [&](int64_t begin, int64_t end) { k::glu_forward(a, begin, end); });
  });
  return out;
}

void glu_backward(at::Tensor& pre, at::Tensor& d_out) {
  const int64_t rows = pre.size(0), hidden = pre.size(1) / 2;
  if (!use_kernels(pre)) {
    at::Tensor linear = pre.narrow(1, 0, hidden), gate = pre.narrow(1, hidden, hidden);
    at::Tensor activated = at::gelu(gate, "tanh");
    at::Tensor out = linear * activated;
    at::Tensor d_gate = at::gelu_backward(d_out * linear, gate, "tanh");
    linear.copy_(d_out * activated);
    gate.copy_(d_gate);
    d_out.copy_(out);
    return;
  }
  with_type(pre.scalar_type(), [&]<class A>() {
    const k::GluBackward<A> a{pointer<A>(pre), pointer<A>(d_out), pointer<A>(pre),
                              pointer<A>(d_out), hidden};
    at::parallel_for(0, rows, grain(hidden),
                     [&](int64_t begin, int64_t end) { k::glu_backward(a, begin, end); });
  });
}

RotaryTable rotary_table(int64_t length, int64_t head_width, const at::TensorOptions& wide) {
  // The angle is rounded to the wide type before sine and cosine are taken, as the authors' fp32
  // code does.
  at::Tensor i = at::arange(0, head_width, 2, at::TensorOptions().dtype(at::kDouble));
  at::Tensor theta = at::pow(10000.0, -i / static_cast<double>(head_width)).to(wide.dtype());
  at::Tensor angle =
      at::arange(length, at::TensorOptions().dtype(wide.dtype())).unsqueeze(1) * theta;
  return {angle.cos().to(wide.device()), angle.sin().to(wide.device())};
}

std::array<at::Tensor, 3> split_rotate(const at::Tensor& qkv, int64_t batch, int64_t heads,
                                       const RotaryTable& table) {
  const int64_t length = qkv.size(0) / batch, head_width = qkv.size(1) / 3 / heads;
  if (!use_kernels(qkv)) {
    at::Tensor parts = qkv.view({batch, length, 3, heads, head_width}).permute({2, 0, 3, 1, 4});
    at::Tensor cos = table.cos.narrow(0, 0, length), sin = table.sin.narrow(0, 0, length);
    auto rotate = [&](const at::Tensor& x) {
      at::Tensor pairs = x.to(cos.scalar_type()).unflatten(-1, {head_width / 2, 2});
      at::Tensor even = pairs.select(-1, 0), odd = pairs.select(-1, 1);
      return at::cat({even * cos - odd * sin, odd * cos + even * sin}, -1).to(x.scalar_type());
    };
    return {rotate(parts[0]), rotate(parts[1]), parts[2].contiguous()};
  }
  std::array<at::Tensor, 3> out;
  for (auto& tensor : out) tensor = at::empty({batch, heads, length, head_width}, qkv.options());
  with_type(qkv.scalar_type(), [&]<class A>() {
    k::RotaryForward<A> a{};
    a.qkv = pointer<A>(qkv);
    a.q = pointer<A>(out[0]);
    a.k = pointer<A>(out[1]);
    a.v = pointer<A>(out[2]);
    a.cosine = pointer<k::Real<A>>(table.cos);
    a.sine = pointer<k::Real<A>>(table.sin);
    a.length = length;
    a.heads = heads;
    a.head_width = head_width;
    at::parallel_for(0, batch * length, grain(qkv.size(1)),
                     [&](int64_t begin, int64_t end) { k::rotary_forward(a, begin, end); });
  });
  return out;
}

at::Tensor merge_rotate_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                                 const RotaryTable& table) {
  const int64_t batch = dq.size(0), heads = dq.size(1), length = dq.size(2),
                head_width = dq.size(3);
  if (!use_kernels(dq)) {
    at::Tensor cos = table.cos.narrow(0, 0, length), sin = table.sin.narrow(0, 0, length);
    auto rotate_back = [&](const at::Tensor& d) {
      at::Tensor wide = d.to(cos.scalar_type());
      at::Tensor first = wide.narrow(-1, 0, head_width / 2),
                 second = wide.narrow(-1, head_width / 2, head_width / 2);
      return at::stack({first * cos + second * sin, second * cos - first * sin}, -1)
          .flatten(-2)
          .to(d.scalar_type());
    };
    at::Tensor parts = at::stack({rotate_back(dq), rotate_back(dk), dv}, 0);  // [3, B, H, T, D]
    return parts.permute({1, 3, 0, 2, 4}).reshape({batch * length, 3 * heads * head_width});
  }
  at::Tensor out = at::empty({batch * length, 3 * heads * head_width}, dq.options());
  const at::Tensor q = dq.contiguous(), key = dk.contiguous(), v = dv.contiguous();
  with_type(dq.scalar_type(), [&]<class A>() {
    k::RotaryBackward<A> a{};
    a.dq = pointer<A>(q);
    a.dk = pointer<A>(key);
    a.dv = pointer<A>(v);
    a.dqkv = pointer<A>(out);
    a.cosine = pointer<k::Real<A>>(table.cos);
    a.sine = pointer<k::Real<A>>(table.sin);
    a.length = length;
    a.heads = heads;
    a.head_width = head_width;
    at::parallel_for(0, batch * length, grain(out.size(1)),
                     [&](int64_t begin, int64_t end) { k::rotary_backward(a, begin, end); });
  });
  return out;
}

at::Tensor merge_heads(const at::Tensor& o) {  // [B, H, T, D]
  return o.transpose(1, 2).reshape({o.size(0) * o.size(2), o.size(1) * o.size(3)});
}

at::Tensor split_heads(const at::Tensor& o, int64_t batch, int64_t heads) {  // [B·T, C]
  return o.view({batch, o.size(0) / batch, heads, o.size(1) / heads}).transpose(1, 2);
}

at::Tensor sinusoidal_table(int64_t length, int64_t width, const at::TensorOptions& wide) {
  at::Tensor i = at::arange(width / 2, at::TensorOptions().dtype(at::kDouble));
  at::Tensor theta = at::pow(10000.0, -i / static_cast<double>(width / 2)).to(wide.dtype());
  at::Tensor angle =
      at::arange(length, at::TensorOptions().dtype(wide.dtype())).unsqueeze(1) * theta;
  return at::stack({angle.sin(), angle.cos()}, -1).flatten(-2).to(wide.device());
}

at::Tensor embed(const at::Tensor& embedding, const at::Tensor& ids, const at::Tensor& positions,
                 double scale) {
  const int64_t rows = ids.numel(), width = embedding.size(1), length = positions.size(0);
  if (!use_kernels(embedding)) {
    return at::index_select(embedding, 0, ids)
        .mul_(scale)
        .view({-1, length, width})
        .add_(positions)
        .view({rows, width});
  }
  at::Tensor x = at::empty({rows, width}, embedding.options());
  with_types(embedding.scalar_type(), embedding.scalar_type(), [&]<class S, class A>() {
    if constexpr (std::is_same_v<S, A>) {
      const k::EmbeddingForward<S> a{pointer<int64_t>(ids),
                                     pointer<S>(embedding),
                                     pointer<S>(positions),
                                     pointer<S>(x),
                                     length,
                                     width,
                                     static_cast<S>(scale)};
      at::parallel_for(0, rows, grain(width),
                       [&](int64_t begin, int64_t end) { k::embedding_forward(a, begin, end); });
    }
  });
  return x;
}

void embed_backward(const at::Tensor& dx, const at::Tensor& ids, at::Tensor d_embedding,
                    double scale) {
  if (!use_kernels(dx)) {
    d_embedding.index_add_(0, ids, dx, scale);
    return;
  }
  with_types(dx.scalar_type(), dx.scalar_type(), [&]<class S, class A>() {
    if constexpr (std::is_same_v<S, A>) {
      const k::EmbeddingBackward<S> a{
          pointer<int64_t>(ids), pointer<S>(dx), pointer<S>(d_embedding),
          ids.numel(),           dx.size(1),     static_cast<S>(scale)};
      at::parallel_for(0, dx.size(1), 64,
                       [&](int64_t begin, int64_t end) { k::embedding_backward(a, begin, end); });
    }
  });
}

void accumulate(at::Tensor accumulator, const at::Tensor& value) {
  if (!use_kernels(value) || accumulator.scalar_type() != at::kFloat || !value.is_contiguous()) {
    accumulator.add_(value);
    return;
  }
  float* sum = pointer<float>(accumulator);
  with_type(value.scalar_type(), [&]<class A>() {
    if constexpr (!std::is_same_v<A, double>) {
      const A* x = pointer<A>(value);
      at::parallel_for(0, value.numel(), 16384,
                       [&](int64_t begin, int64_t end) { k::accumulate(x, sum, begin, end); });
    }
  });
}

at::Tensor to_compute(const at::Tensor& x, at::ScalarType compute) { return x.to(compute); }

void dropout(at::Tensor& y, double rate, const DropoutKey& key, int64_t batch, int64_t site) {
  if (rate == 0) return;
  const int64_t length = y.size(0) / batch, width = y.size(1);
  at::Tensor keep = at::empty({y.size(0), width}, at::TensorOptions().dtype(at::kByte));
  const auto threshold = static_cast<uint32_t>(std::min(rate * 0x1p32, 0x1p32 - 1));
  auto* mask = keep.data_ptr<uint8_t>();
  at::parallel_for(0, y.size(0), grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto sequence = static_cast<uint64_t>(key.first_sequence + row / length);
      const auto stream = static_cast<uint64_t>(site) << 40 | static_cast<uint64_t>(row % length);
      // (step, sequence) go into the key, since a counter has room for the element's place alone.
      Philox names(key.seed ^ sequence * 0x9E3779B97F4A7C15u ^
                       static_cast<uint64_t>(key.step) * 0xD1B54A32D192ED03u,
                   RandomPurpose::dropout, stream);
      for (int64_t c = 0; c < width; ++c) mask[row * width + c] = names.next_u32() >= threshold;
    }
  });
  y.mul_(keep.to(y.device()).to(y.scalar_type()).mul_(1 / (1 - rate)));
}

}  // namespace polysketch::ops
