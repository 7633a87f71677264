// SPDX-License-Identifier: Apache-2.0
#include "attention/linear_attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <functional>

#include "attention/arithmetic.hpp"
#include "attention/ops/chunk_states.hpp"
#include "attention/ops/cpu_rows.hpp"
#include "attention/ops/polynomial.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// The blocks on the diagonal: polynomial attention that sees no further than where its block
/// begins.
ops::PolynomialCall inside_blocks(const LinearAttention& call) {
  const bool same = !call.q.defined();
  ops::PolynomialCall inside;
  inside.q = same ? call.a : call.q;
  inside.k = same ? call.b : call.k;
  inside.v = call.v;
  inside.degree = same ? call.power : call.local_degree;
  inside.first_keys = call.documents.block_first_keys(call.block, call.v);
  inside.log_scale = call.log_scale;
  if (call.normaliser_offset == 0) {
    const auto scalar = at::TensorOptions().dtype(at::kDouble).device(call.v.device());
    inside.normaliser_offset = at::zeros({}, scalar);
    inside.key_scale = at::ones({}, scalar);
  }
  return inside;
}

bool has_earlier_blocks(const LinearAttention& call) {
  return call.a.defined() && call.v.size(2) > call.block;
}

ops::ChunkStatesCall earlier_blocks(const LinearAttention& call) {
  return {call.a,        call.b,     call.v,
          call.power,    call.block, call.documents.first_keys(call.v.device()),
          call.log_scale};
}

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

struct Kept : public torch::CustomClassHolder {
  explicit Kept(LinearAttention given) : call(std::move(given)) {}
  LinearAttention call;  ///< without its tensors
};

struct LinearAttentionFunction : public torch::autograd::Function<LinearAttentionFunction> {
  using Optional = std::optional<at::Tensor>;

  static at::Tensor forward(torch::autograd::AutogradContext* context, const Optional& a,
                            const Optional& b, const Optional& q, const Optional& k,
                            const at::Tensor& v, const Optional& log_scale,
                            const LinearAttention& given) {
    const auto or_none = [](const Optional& x) { return x.has_value() ? *x : at::Tensor(); };
    LinearAttention call = given;
    for (at::Tensor* x : {&call.a, &call.b, &call.q, &call.k, &call.v, &call.log_scale})
      *x = at::Tensor();
    context->saved_data["call"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(call));
    call.a = or_none(a);
    call.b = or_none(b);
    call.q = or_none(q);
    call.k = or_none(k);
    call.v = v;
    call.log_scale = or_none(log_scale);
    const LinearAttentionResult result = linear_attention_forward(call);
    context->save_for_backward(
        {call.a, call.b, call.q, call.k, v, call.log_scale, result.output, result.divisor});
    return result.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    require(!at::GradMode::is_enabled(), "linear attention has no second derivative");
    const auto kept = context->get_saved_variables();
    LinearAttention call =
        c10::static_intrusive_pointer_cast<Kept>(context->saved_data.at("call").toCapsule())->call;
    call.a = kept[0];
    call.b = kept[1];
    call.q = kept[2];
    call.k = kept[3];
    call.v = kept[4];
    call.log_scale = kept[5];
    const LinearAttentionGradients back =
        linear_attention_backward(call, {kept[6], kept[7]}, gradients[0]);
    return {back.a, back.b, back.q, back.k, back.v, back.log_scale, at::Tensor()};
  }
};

}  // namespace

LinearAttentionResult linear_attention_forward(const LinearAttention& call) {
  const ops::PolynomialResult inside = ops::polynomial_forward(inside_blocks(call));
  const bool more = has_earlier_blocks(call);
  if (!more && call.divisor_floor == 0) return {inside.output, inside.normaliser};
  ops::ChunkStatesResult earlier;
  if (more) earlier = ops::chunk_states_forward(earlier_blocks(call));
  const LinearAttentionResult result{ops::joined_like(call.v), at::empty_like(inside.normaliser)};
  for_each_part(call.v, [&](const Part& part) {
    // in the wide type
    at::Tensor sum = part(inside.output) * part(inside.normaliser).unsqueeze(-1);
    at::Tensor whole = part(inside.normaliser);
    if (more) {
      sum.add_(part(earlier.sum));
      whole = whole + part(earlier.row_sum);
    }
    if (call.divisor_floor > 0) whole = raised_divisor(whole, call.divisor_floor);
    part(result.divisor).copy_(whole);
    part(result.output).copy_(sum.mul_(inverse_or_zero(whole).unsqueeze(-1)));
  });
  return result;
}

LinearAttentionGradients linear_attention_backward(const LinearAttention& call,
                                                   const LinearAttentionResult& result,
                                                   const at::Tensor& output_gradient) {
  // For the whole output and the whole divisor: weights inside a block have the same gradients
  // whatever else was added up.
  const ops::PolynomialGradients inside = ops::polynomial_backward(
      inside_blocks(call), {result.output, result.divisor}, output_gradient);
  const bool same = !call.q.defined();
  LinearAttentionGradients back;
  (same ? back.a : back.q) = inside.q;
  (same ? back.b : back.k) = inside.k;
  back.v = inside.v;
  if (has_earlier_blocks(call)) {
    const at::Tensor dn = at::empty(result.output.sizes(), result.divisor.options()),
                     dz = at::empty_like(result.divisor);
    for_each_part(result.output, [&](const Part& part) {
      // in the wide type
      const at::Tensor rows =
          part(output_gradient) * inverse_or_zero(part(result.divisor)).unsqueeze(-1);
      part(dn).copy_(rows);
      part(dz).copy_((rows * part(result.output)).sum(-1).neg_());
    });
    ops::ChunkStatesGradients earlier = ops::chunk_states_backward(earlier_blocks(call), dn, dz);
    back.a = same ? earlier.a.add_(back.a) : earlier.a;
    back.b = same ? earlier.b.add_(back.b) : earlier.b;
    back.v = earlier.v.add_(back.v);
  }
  // Key j counts exp(log_scale_j) times as much as its features say, query i exp(−log_scale_i).
  if (call.log_scale.defined())
    back.log_scale =
        (call.b * back.b - call.a * back.a).sum(3, false, call.log_scale.scalar_type());
  return back;
}

at::Tensor linear_attention(const LinearAttention& call) {
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::optional(x) : std::nullopt;
  };
  return LinearAttentionFunction::apply(optional(call.a), optional(call.b), optional(call.q),
                                        optional(call.k), call.v, optional(call.log_scale), call);
}

}  // namespace polysketch
