// SPDX-License-Identifier: Apache-2.0
#include "attention/polysketch.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "attention/arithmetic.hpp"
#include "attention/linear_cost.hpp"
#include "attention/recurrent.hpp"

namespace polysketch {

PolysketchAttention::PolysketchAttention(const AttentionConfig& config, const AttentionShape& shape,
                                         const at::TensorOptions& parameters,
                                         const AttentionDraw& draw)
    : config_(config), shape_(shape) {
  if (config.degree < 2 || (config.degree & (config.degree - 1)) != 0) {
    throw UserError(
        ExitCode::config,
        fmt::format("attention.degree: got {}, want a power of two, 2 or more, for polysketch",
                    config.degree));
  }
  const int64_t half = config.degree / 2;
  if (config.sketch == SketchKind::random) {
    norm_.emplace(shape.head_width, parameters);
    sketch_ = make_random_sketch(shape.head_width, config.sketch_size, half, config.sketch_scale,
                                 draw, parameters);
    return;
  }
  sketch_ = make_learned_sketch(shape.head_width, config.sketch_size, half, parameters);
  if (config.local == LocalAttention::exact) {
    query_norm_.emplace(shape.head_width, parameters);
    key_norm_.emplace(shape.head_width, parameters);
  }
}

PolysketchAttention::SketchedRows PolysketchAttention::sketched_rows(int64_t length) const {
  if (config_.local == LocalAttention::none) return {0, length, length};
  if (length <= config_.block) return {};
  return {config_.block, length - config_.block, (length - 1) / config_.block * config_.block};
}

LinearAttention PolysketchAttention::call(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const SketchedRows& rows) const {
  const bool local = config_.local == LocalAttention::exact, random = norm_.has_value();
  LinearAttention call;
  call.v = v;
  call.local_degree = config_.degree;
  call.block = config_.block;
  const at::Tensor normed_q = random ? (*norm_)(q) : q, normed_k = random ? (*norm_)(k) : k;
  if (rows.queries > 0) {
    const auto sketched = [&](const at::Tensor& x, int64_t first, int64_t count) {
      if (count == x.size(2)) return (*sketch_)(x);
      return at::constant_pad_nd((*sketch_)(x.narrow(2, first, count)),
                                 {0, 0, first, x.size(2) - first - count});
    };
    call.a = sketched(normed_q, rows.first_query, rows.queries);
    call.b = sketched(normed_k, 0, rows.keys);
  }
  if (local) {
    call.q = random ? normed_q : (*query_norm_)(q);
    call.k = random ? normed_k : (*key_norm_)(k);
  }
  return call;
}

at::Tensor PolysketchAttention::forward(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  const int64_t length = q.size(2);
  if (!documents.defined()) return linear_attention(call(q, k, v, sketched_rows(length)));
  const SketchedRows all{0, length, length};
  LinearAttention packed = call(q, k, v, length > config_.block ? all : sketched_rows(length));
  packed.documents = documents;
  return linear_attention(packed);
}

AttentionCost PolysketchAttention::cost(int64_t length) const {
  const bool local = config_.local == LocalAttention::exact;
  LinearCost kernel;
  kernel.width = sketch_->size();
  kernel.power = 2;
  kernel.near_width = local ? shape_.head_width : sketch_->size();
  kernel.block = config_.block;
  const SketchedRows rows = sketched_rows(length);
  kernel.feature_flops = static_cast<double>(rows.queries + rows.keys) * sketch_->flops();
  return linear_attention_cost(kernel, shape_, length);
}

std::vector<AttentionParameter> PolysketchAttention::parameters() {
  std::vector<AttentionParameter> all;
  const auto add = [&](std::vector<AttentionParameter> some) {
    for (AttentionParameter& one : some) all.push_back(std::move(one));
  };
  if (norm_) add(norm_->parameters("norm."));
  for (AttentionParameter& one : sketch_->parameters())
    all.push_back({"sketch." + one.name, one.value});
  if (query_norm_) add(query_norm_->parameters("query_norm."));
  if (key_norm_) add(key_norm_->parameters("key_norm."));
  return all;
}

std::vector<AttentionParameter> PolysketchAttention::constants() {
  std::vector<AttentionParameter> all;
  for (AttentionParameter& one : sketch_->constants())
    all.push_back({"sketch." + one.name, one.value});
  return all;
}

std::unique_ptr<AttentionState> PolysketchAttention::initial_state() const {
  return std::make_unique<LinearState>();
}

at::Tensor PolysketchAttention::prefill(AttentionState& state, const at::Tensor& q,
                                        const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  return linear_attention_next(dynamic_cast<LinearState&>(state),
                               call(q, k, v, {0, q.size(2), q.size(2)}));
}

WeightRows PolysketchAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                                const at::Tensor& positions) const {
  const at::NoGradGuard no_grad;
  const bool local = config_.local == LocalAttention::exact, random = norm_.has_value();
  const int64_t length = k.size(2);
  const at::Tensor wide_q = q.to(wide_type(k)), wide_k = k.to(wide_type(k));
  const auto normed = [&](const at::Tensor& x, const std::optional<HeadNorm>& own) {
    const std::optional<HeadNorm>& norm = random ? norm_ : own;
    return norm ? (*norm)(x) : at::layer_norm(x, {x.size(3)}, {}, {}, HeadNorm::kEpsilon);
  };
  const at::Tensor normed_q = normed(wide_q, query_norm_), normed_k = normed(wide_k, key_norm_);
  const at::Tensor sketch_q = (*sketch_)(random ? normed_q : wide_q),
                   sketch_k = (*sketch_)(random ? normed_k : wide_k);
  const at::Tensor sketched = dot_products(sketch_q, sketch_k).square();
  const at::Tensor exact = integer_power(dot_products(normed_q, normed_k), config_.degree);
  const at::Tensor seen = seen_keys(positions, length, k);
  WeightRows rows = power_weight_rows(
      local ? at::where(own_block(positions, length, config_.block, k), exact, sketched) : sketched,
      config_.degree, positions, seen);
  rows.sketched = sketched.masked_fill(seen.logical_not(), 0);
  rows.exact = exact.masked_fill(seen.logical_not(), 0);
  rows.block = config_.block;
  return rows;
}

}  // namespace polysketch
