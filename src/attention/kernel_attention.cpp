// SPDX-License-Identifier: Apache-2.0
#include "attention/kernel_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>

#include "attention/arithmetic.hpp"
#include "attention/causal_blocks.hpp"
#include "attention/head_rows.hpp"
#include "attention/polynomial_blocks.hpp"
#include "attention/polynomial_heads.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// First key that a query sees inside its own block, [B, T]; blocks are counted from where a
/// document begins.
at::Tensor block_starts(const KernelAttention& call) {
  const int64_t batch = call.v.size(0), length = call.v.size(2);
  const at::Tensor starts = at::empty({batch, length}, at::kInt);
  auto* start = starts.mutable_data_ptr<int32_t>();
  const int32_t* documents =
      call.starts.defined() ? call.starts.const_data_ptr<int32_t>() : nullptr;
  for (int64_t i = 0; i < batch * length; ++i) {
    const int64_t position = i % length, document = documents == nullptr ? 0 : documents[i];
    start[i] = static_cast<int32_t>(position - (position - document) % call.block);
  }
  return starts;
}

at::Tensor padded(const at::Tensor& x, int64_t width) {
  return x.size(3) == width ? x : at::constant_pad_nd(x, {0, width - x.size(3)}, 0);
}

/// The blocks on the diagonal: polynomial attention that sees no further than where its block
/// begins. Queries, keys and values of different widths are filled up with zeros where the
/// processor's own kernels can then do it.
class Diagonal {
 public:
  explicit Diagonal(const KernelAttention& call) : width_(call.v.size(3)) {
    const bool same = !call.q.defined();
    call_.q = same ? call.a : call.q;
    call_.k = same ? call.b : call.k;
    call_.v = call.v;
    call_.degree = same ? call.power : call.local_degree;
    call_.starts = block_starts(call);
    call_.log_scale = call.log_scale;
    if (call.one == 0) {
      call_.one = at::scalar_tensor(0.0, at::kDouble);
      call_.key_scale = at::scalar_tensor(1.0, at::kDouble);
    }
    key_width_ = call_.q.size(3);
    fill_up();
  }

  PolynomialResult forward() const {
    PolynomialResult result =
        kernels_ ? polynomial_heads_forward(call_) : polynomial_blocks_forward(call_);
    result.output = result.output.narrow(3, 0, width_);
    return result;
  }

  /// For the whole output and the whole divisor: weights inside a block have the same gradients
  /// whatever else was added up.
  PolynomialGradients backward(const PolynomialResult& whole,
                               const at::Tensor& output_gradient) const {
    const PolynomialResult wide{padded(whole.output, call_.v.size(3)), whole.normaliser};
    const at::Tensor gradient = padded(output_gradient, call_.v.size(3));
    PolynomialGradients back = kernels_ ? polynomial_heads_backward(call_, wide, gradient)
                                        : polynomial_blocks_backward(call_, wide, gradient);
    back.q = back.q.narrow(3, 0, key_width_);
    back.k = back.k.narrow(3, 0, key_width_);
    back.v = back.v.narrow(3, 0, width_);
    return back;
  }

 private:
  void fill_up() {
    if (call_.log_scale.defined()) return;
    PolynomialCall even = call_;
    const int64_t width = std::max(key_width_, width_);
    even.q = padded(call_.q, width);
    even.k = padded(call_.k, width);
    even.v = padded(call_.v, width);
    kernels_ = has_head_kernels(even);
    if (kernels_) call_ = even;
  }

  PolynomialCall call_;
  int64_t width_, key_width_ = 0;
  bool kernels_ = false;
};

// a part's wide rows stay in a core's cache between one pass over them and the next
constexpr int64_t kPartRows = 1024;

using Part = std::function<at::Tensor(const at::Tensor&)>;

/// Calls work(part) for parts that make up the whole: `part` cuts them out of any [B, H, T, …]. On
/// the CPU some rows of a head each, over threads; elsewhere all at once.
void for_each_part(const at::Tensor& like, const std::function<void(const Part&)>& work) {
  if (!like.is_cpu()) return work([](const at::Tensor& x) { return x; });
  const int64_t heads = like.size(1), length = like.size(2),
                pieces = (length + kPartRows - 1) / kPartRows;
  at::parallel_for(0, like.size(0) * heads * pieces, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;  // does not reach other threads by itself
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i % pieces * kPartRows, head = i / pieces;
      work([&](const at::Tensor& x) {
        return x.select(0, head / heads)
            .select(0, head % heads)
            .narrow(0, row, std::min(kPartRows, length - row));
      });
    }
  });
}

CausalBlocks between_blocks(const KernelAttention& call) {
  return {call.a, call.b, call.v, call.power, call.block, call.starts, call.log_scale};
}

bool has_far(const KernelAttention& call) {
  return call.a.defined() && call.v.size(2) > call.block;
}

struct KernelAttentionFunction : public torch::autograd::Function<KernelAttentionFunction> {
  using Optional = std::optional<at::Tensor>;

  static at::Tensor forward(torch::autograd::AutogradContext* context, const Optional& a,
                            const Optional& b, const Optional& q, const Optional& k,
                            const at::Tensor& v, const Optional& log_scale,
                            const KernelAttention& given) {
    const auto or_none = [](const Optional& x) { return x.has_value() ? *x : at::Tensor(); };
    KernelAttention call = given;
    call.a = or_none(a);
    call.b = or_none(b);
    call.q = or_none(q);
    call.k = or_none(k);
    call.v = v;
    call.log_scale = or_none(log_scale);
    const PolynomialResult near = Diagonal(call).forward();
    at::Tensor output = near.output, divisor = near.normaliser;
    if (has_far(call) || call.floor > 0) {
      CausalBlocksResult far;
      if (has_far(call)) far = causal_blocks_forward(between_blocks(call));
      output = joined_like(v);
      divisor = at::empty_like(near.normaliser);
      for_each_part(v, [&](const Part& part) {
        // in the wide type
        at::Tensor sum = part(near.output) * part(near.normaliser).unsqueeze(-1);
        at::Tensor whole = part(near.normaliser);
        if (has_far(call)) {
          sum.add_(part(far.sum));
          whole = whole + part(far.row_sum);
        }
        if (call.floor > 0) whole = raised_divisor(whole, call.floor);
        part(divisor).copy_(whole);
        part(output).copy_(sum.mul_(inverse_or_zero(whole).unsqueeze(-1)));
      });
    }
    context->save_for_backward(
        {call.a, call.b, call.q, call.k, v, output, divisor, call.log_scale});
    context->saved_data["power"] = call.power;
    context->saved_data["local_degree"] = call.local_degree;
    context->saved_data["block"] = call.block;
    context->saved_data["one"] = call.one;
    if (call.starts.defined()) context->saved_data["starts"] = call.starts;
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    require(!at::GradMode::is_enabled(), "kernel attention has no second derivative");
    const auto kept = context->get_saved_variables();
    const auto& data = context->saved_data;
    KernelAttention call;
    call.a = kept[0];
    call.b = kept[1];
    call.q = kept[2];
    call.k = kept[3];
    call.v = kept[4];
    call.log_scale = kept[7];
    call.power = data.at("power").toInt();
    call.local_degree = data.at("local_degree").toInt();
    call.block = data.at("block").toInt();
    call.one = data.at("one").toDouble();
    if (data.count("starts")) call.starts = data.at("starts").toTensor();
    const at::Tensor &output = kept[5], &divisor = kept[6];
    PolynomialGradients near = Diagonal(call).backward({output, divisor}, gradients[0]);
    const bool same = !call.q.defined();
    at::Tensor da = same ? near.q : at::Tensor(), db = same ? near.k : at::Tensor(), dv = near.v;
    if (has_far(call)) {
      const at::Tensor dn = at::empty(output.sizes(), divisor.options()),
                       dz = at::empty_like(divisor);
      for_each_part(output, [&](const Part& part) {
        // in the wide type
        const at::Tensor rows = part(gradients[0]) * inverse_or_zero(part(divisor)).unsqueeze(-1);
        part(dn).copy_(rows);
        part(dz).copy_((rows * part(output)).sum(-1).neg_());
      });
      CausalBlocksGradients far = causal_blocks_backward(between_blocks(call), dn, dz);
      da = same ? far.a.add_(da) : far.a;
      db = same ? far.b.add_(db) : far.b;
      dv = far.v.add_(dv);
    }
    // Key j counts exp(log_scale_j) times as much as its features say, query i exp(−log_scale_i).
    at::Tensor dscale;
    if (call.log_scale.defined())
      dscale = (call.b * db - call.a * da).sum(3, false, call.log_scale.scalar_type());
    if (same) return {da, db, at::Tensor(), at::Tensor(), dv, dscale, at::Tensor()};
    return {da, db, near.q, near.k, dv, dscale, at::Tensor()};
  }
};

}  // namespace

at::Tensor kernel_attention(const KernelAttention& call) {
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::optional(x) : std::nullopt;
  };
  return KernelAttentionFunction::apply(optional(call.a), optional(call.b), optional(call.q),
                                        optional(call.k), call.v, optional(call.log_scale), call);
}

}  // namespace polysketch
