// SPDX-License-Identifier: Apache-2.0
#include "attention/polynomial.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "attention/pair_cost.hpp"
#include "attention/polynomial_blocks.hpp"

namespace polysketch {
namespace {

constexpr double kNormEpsilon = 1e-5;

struct PolynomialFunction : public torch::autograd::Function<PolynomialFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            int64_t degree, const Documents& documents, int64_t tile) {
    const at::Tensor starts = documents.defined() ? documents.starts() : at::Tensor();
    const BlockedForward result = polynomial_blocks_forward(q, k, v, degree, starts, tile);
    context->save_for_backward({q, k, v, result.output, result.normaliser});
    context->saved_data["degree"] = degree;
    context->saved_data["tile"] = tile;
    if (starts.defined()) context->saved_data["starts"] = starts;
    return result.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& data = context->saved_data;
    const at::Tensor starts = data.count("starts") ? data.at("starts").toTensor() : at::Tensor();
    const BlockedBackward back = polynomial_blocks_backward(gradients[0], saved[0], saved[1], saved[2], {saved[3], saved[4]},
                                                            data.at("degree").toInt(), starts, data.at("tile").toInt());
    return {back.q, back.k, back.v, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

PolynomialAttention::PolynomialAttention(int64_t degree, const AttentionShape& shape, const at::TensorOptions& parameters)
    : degree_(degree), shape_(shape) {
  if (degree < 2 || degree % 2 != 0) {
    throw UserError(ExitCode::config, fmt::format("attention.degree: got {}, want an even number, 2 or more", degree));
  }
  gain_ = at::ones({shape.head_width}, parameters).requires_grad_();
  bias_ = at::zeros({shape.head_width}, parameters).requires_grad_();
}

at::Tensor PolynomialAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  const at::Tensor normed_q = at::layer_norm(q, {shape_.head_width}, gain_, bias_, kNormEpsilon);
  const at::Tensor normed_k = at::layer_norm(k, {shape_.head_width}, gain_, bias_, kNormEpsilon);
  return polynomial_attention(normed_q, normed_k, v, degree_, documents);
}

AttentionCost PolynomialAttention::cost(int64_t length) const {
  AttentionCost cost = pair_attention_cost(shape_, length);
  cost.saved_floats += shape_.heads * length;  // normaliser
  return cost;
}

std::vector<AttentionParameter> PolynomialAttention::parameters() { return {{"norm.gain", gain_}, {"norm.bias", bias_}}; }

at::Tensor polynomial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t degree, const Documents& documents,
                                int64_t tile) {
  return PolynomialFunction::apply(q, k, v, degree, documents, tile);
}

}  // namespace polysketch
