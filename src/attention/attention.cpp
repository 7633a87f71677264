// SPDX-License-Identifier: Apache-2.0
#include "attention/attention.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "attention/hedgehog.hpp"
#include "attention/local_polynomial.hpp"
#include "attention/performer.hpp"
#include "attention/polynomial_attention.hpp"
#include "attention/polysketch.hpp"
#include "attention/sliding_window.hpp"
#include "attention/softmax.hpp"

namespace polysketch {

namespace {

// MKL's vector functions, which LibTorch calls from several threads, set themselves up at the first
// call of a process. When two threads make it at once, one of them may get numbers that are right
// to 1e-10 only (seen in 2 of 100 processes, with exp of doubles): a result that depends on luck.
// So the first call is made here, by one thread.
void set_up_vector_functions() {
  static const bool once = [] {
    for (const auto type : {at::kFloat, at::kDouble})
      at::exp(at::zeros({1}, at::TensorOptions().dtype(type)));
    return true;
  }();
  (void)once;
}

}  // namespace

std::unique_ptr<Attention> make_attention(const AttentionConfig& config,
                                          const AttentionShape& shape,
                                          const at::TensorOptions& parameters,
                                          const AttentionDraw& draw) {
  set_up_vector_functions();
  switch (config.kind) {
    case AttentionKind::softmax:
      return std::make_unique<SoftmaxAttention>(shape);
    case AttentionKind::polynomial:
      return std::make_unique<PolynomialAttention>(config.degree, shape, parameters);
    case AttentionKind::polysketch:
      return std::make_unique<PolysketchAttention>(config, shape, parameters, draw);
    case AttentionKind::performer:
      return std::make_unique<PerformerAttention>(config, shape, parameters, draw);
    case AttentionKind::hedgehog:
      return std::make_unique<HedgehogAttention>(config, shape, parameters);
    case AttentionKind::sliding_window:
      return std::make_unique<SlidingWindowAttention>(config.window, shape);
    case AttentionKind::local_polynomial:
      return std::make_unique<LocalPolynomialAttention>(config, shape, parameters);
  }
  throw InternalError("make_attention: unknown kind");
}

at::Tensor Attention::step(AttentionState& state, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) const {
  if (q.size(2) != 1)
    throw ShapeError(fmt::format("attention: a step takes one token, got {}", q.size(2)));
  return prefill(state, q, k, v);
}

void check_attention_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionShape& shape, const Documents& documents) {
  const auto sizes = [](const at::Tensor& x) {
    return fmt::format("[{}]", fmt::join(x.sizes(), ", "));
  };
  if (q.dim() != 4 || q.sizes() != k.sizes() || q.sizes() != v.sizes() ||
      q.size(1) != shape.heads || q.size(3) != shape.head_width || q.size(2) < 1) {
    throw ShapeError(fmt::format("attention: want q, k, v alike, [B, {}, T, {}]; got {}, {}, {}",
                                 shape.heads, shape.head_width, sizes(q), sizes(k), sizes(v)));
  }
  if (q.scalar_type() != k.scalar_type() || q.scalar_type() != v.scalar_type() ||
      q.device() != k.device() || q.device() != v.device()) {
    throw ShapeError("attention: q, k and v differ in type or device");
  }
  if (documents.defined() &&
      (documents.starts().size(0) != q.size(0) || documents.starts().size(1) != q.size(2))) {
    throw ShapeError(
        fmt::format("attention: documents are {}, q is {}", sizes(documents.starts()), sizes(q)));
  }
}

}  // namespace polysketch
