// SPDX-License-Identifier: Apache-2.0
#include "attention/local_polynomial.hpp"

#include <ATen/ATen.h>

#include "attention/arithmetic.hpp"
#include "attention/linear_cost.hpp"
#include "attention/recurrent.hpp"

namespace polysketch {

LocalPolynomialAttention::LocalPolynomialAttention(const AttentionConfig& config,
                                                   const AttentionShape& shape,
                                                   const at::TensorOptions& parameters)
    : degree_(config.degree),
      block_(config.block),
      shape_(shape),
      norm_(shape.head_width, parameters) {}

LinearAttention LocalPolynomialAttention::call(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& v) const {
  LinearAttention call;
  call.q = norm_(q);
  call.k = norm_(k);
  call.v = v;
  call.local_degree = degree_;
  call.block = block_;
  return call;
}

at::Tensor LocalPolynomialAttention::forward(const at::Tensor& q, const at::Tensor& k,
                                             const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  LinearAttention call = this->call(q, k, v);
  call.documents = documents;
  return linear_attention(call);
}

AttentionCost LocalPolynomialAttention::cost(int64_t length) const {
  LinearCost kernel;
  kernel.near_width = shape_.head_width;
  kernel.block = block_;
  return linear_attention_cost(kernel, shape_, length);
}

std::unique_ptr<AttentionState> LocalPolynomialAttention::initial_state() const {
  return std::make_unique<LinearState>();
}

at::Tensor LocalPolynomialAttention::prefill(AttentionState& state, const at::Tensor& q,
                                             const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  return linear_attention_next(dynamic_cast<LinearState&>(state), call(q, k, v));
}

WeightRows LocalPolynomialAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& positions) const {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(k);
  const int64_t length = k.size(2);
  const at::Tensor weights =
      integer_power(dot_products(norm_(q.to(type)), norm_(k.to(type))), degree_);
  const at::Tensor seen =
      seen_keys(positions, length, k).logical_and(own_block(positions, length, block_, k));
  return power_weight_rows(weights, degree_, positions, seen);
}

}  // namespace polysketch
