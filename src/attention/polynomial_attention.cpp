// SPDX-License-Identifier: Apache-2.0
#include "attention/polynomial_attention.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "attention/arithmetic.hpp"
#include "attention/ops/polynomial.hpp"
#include "attention/pair_cost.hpp"
#include "attention/recurrent.hpp"

namespace polysketch {
namespace {

// Row sums stay below 2^90: fp32 ends at 2^128, and gradients multiply them with values and further
// scores.
constexpr double kLargestSum = 90;
// ... unless the 1 of the normaliser would have to go below 2^-100, where it and small weights fade
// away.
constexpr double kSmallestOne = 100;
// Keys of a text that is still growing get the scale of a long one.
constexpr int64_t kLongestText = int64_t{1} << 24;

/// (a·s)^p / (s^p + sum (a·s)^p) is the same for every s. Powers of two below 1 keep high degrees
/// and large gains finite. The bound on the scores comes from the parameters alone, |LN(x)| <=
/// sqrt(D)·max|gain| + |bias|, so that no position influences an earlier one. Stays on the device:
/// no wait for it.
void choose_scale(ops::PolynomialCall& call, int64_t length) {
  const at::NoGradGuard no_grad;
  const double width = static_cast<double>(call.q.size(3)),
               degree = static_cast<double>(call.degree);
  const at::Tensor norm =
      call.gain.abs().max().to(at::kDouble) * std::sqrt(width) + call.bias.to(at::kDouble).norm();
  const at::Tensor sum = norm.log2() * (2 * degree) + std::log2(static_cast<double>(length));
  const at::Tensor exponent = ((sum - kLargestSum) / degree)
                                  .ceil()
                                  .clamp(0, std::floor(kSmallestOne / degree))
                                  .nan_to_num(0);
  call.key_scale = exponent.neg().exp2();
  call.normaliser_offset = (exponent * -degree).exp2();
}

struct PolynomialFunction : public torch::autograd::Function<PolynomialFunction> {
  using OptionalTensor = std::optional<at::Tensor>;

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v, const OptionalTensor& gain,
                            const OptionalTensor& bias, int64_t degree, const Documents& documents,
                            int64_t tile) {
    ops::PolynomialCall call;
    call.q = q;
    call.k = k;
    call.v = v;
    call.degree = degree;
    call.tile = tile;
    call.first_keys = documents.first_keys(q.device());
    torch::autograd::variable_list kept{q, k, v};
    if (gain.has_value()) {
      call.gain = *gain;
      call.bias = *bias;
      call.epsilon = HeadNorm::kEpsilon;
      choose_scale(call, q.size(2));
    }
    const ops::PolynomialResult result = ops::polynomial_forward(call);
    kept.insert(kept.end(), {result.output, result.normaliser});
    if (gain.has_value())
      kept.insert(kept.end(), {call.gain, call.bias, call.key_scale, call.normaliser_offset});
    context->save_for_backward(std::move(kept));
    context->saved_data["degree"] = degree;
    context->saved_data["tile"] = tile;
    context->saved_data["host"] = call.first_keys.host;
    context->saved_data["device"] = call.first_keys.device;
    return result.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    require(!at::GradMode::is_enabled(), "polynomial attention has no second derivative");
    const auto kept = context->get_saved_variables();
    const auto& data = context->saved_data;
    ops::PolynomialCall call;
    call.q = kept[0];
    call.k = kept[1];
    call.v = kept[2];
    call.degree = data.at("degree").toInt();
    call.tile = data.at("tile").toInt();
    call.first_keys = {data.at("host").toTensor(), data.at("device").toTensor()};
    if (kept.size() > 5) {
      call.gain = kept[5];
      call.bias = kept[6];
      call.key_scale = kept[7];
      call.normaliser_offset = kept[8];
      call.epsilon = HeadNorm::kEpsilon;
    }
    const ops::PolynomialGradients back =
        ops::polynomial_backward(call, {kept[3], kept[4]}, gradients[0]);
    return {back.q, back.k, back.v, back.gain, back.bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

PolynomialAttention::PolynomialAttention(int64_t degree, const AttentionShape& shape,
                                         const at::TensorOptions& parameters)
    : degree_(degree), shape_(shape), norm_(shape.head_width, parameters) {
  if (degree < 2 || degree % 2 != 0) {
    throw UserError(
        ExitCode::config,
        fmt::format("attention.degree: got {}, want an even number, 2 or more", degree));
  }
}

at::Tensor PolynomialAttention::forward(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  return PolynomialFunction::apply(q, k, v, std::optional(norm_.gain()),
                                   std::optional(norm_.bias()), degree_, documents, int64_t{0});
}

AttentionCost PolynomialAttention::cost(int64_t length) const {
  AttentionCost cost = pair_attention_cost(shape_, length);
  cost.saved_floats += shape_.heads * length;  // normaliser
  return cost;
}

std::vector<AttentionParameter> PolynomialAttention::parameters() {
  return norm_.parameters("norm.");
}

std::unique_ptr<AttentionState> PolynomialAttention::initial_state() const {
  return std::make_unique<LinearState>();
}

at::Tensor PolynomialAttention::prefill(AttentionState& state, const at::Tensor& q,
                                        const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  ops::PolynomialCall scaled;
  scaled.q = q;
  scaled.gain = norm_.gain();
  scaled.bias = norm_.bias();
  scaled.degree = degree_;
  choose_scale(scaled, kLongestText);
  LinearAttention call;
  call.q = norm_(q);
  call.k = norm_(k) * scaled.key_scale.to(k.scalar_type());
  call.v = v;
  call.local_degree = degree_;
  call.block = std::numeric_limits<int64_t>::max();  // one block without end
  call.normaliser_offset = scaled.normaliser_offset.item<double>();
  return linear_attention_next(dynamic_cast<LinearState&>(state), call);
}

WeightRows PolynomialAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                                const at::Tensor& positions) const {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(k);
  const at::Tensor weights =
      integer_power(dot_products(norm_(q.to(type)), norm_(k.to(type))), degree_);
  return power_weight_rows(weights, degree_, positions, seen_keys(positions, k.size(2), k));
}

at::Tensor polynomial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const PolynomialOptions& options) {
  return PolynomialFunction::apply(q, k, v, options.gain, options.bias, options.degree,
                                   options.documents, options.tile);
}

}  // namespace polysketch
