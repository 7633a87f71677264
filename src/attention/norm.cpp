// SPDX-License-Identifier: Apache-2.0
#include "attention/norm.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "support/error.hpp"

namespace polysketch {
namespace {

/// Layer norm of narrow rows in the type of the gain. LibTorch's own for such a mixture adds up the gradients of gain and bias in the
/// narrow type, which leaves them a few percent off.
struct NarrowNorm : public torch::autograd::Function<NarrowNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& gain,
                            const at::Tensor& bias) {
    context->save_for_backward({x, gain, bias});
    return at::layer_norm(x.to(gain.scalar_type()), {x.size(-1)}, gain, bias, HeadNorm::kEpsilon).to(x.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    require(!at::GradMode::is_enabled(), "the norm of a head has no second derivative");
    const auto kept = context->get_saved_variables();
    const at::Tensor &gain = kept[1], &bias = kept[2];
    const auto width = kept[0].size(-1);
    const at::Tensor x = kept[0].to(gain.scalar_type()).contiguous(), dy = gradients[0].to(gain.scalar_type()).contiguous();
    const auto [y, mean, rstd] = at::native_layer_norm(x, {width}, gain, bias, HeadNorm::kEpsilon);
    const auto [dx, dgain, dbias] = at::native_layer_norm_backward(dy, x, {width}, mean, rstd, gain, bias, {true, true, true});
    return {dx.to(kept[0].scalar_type()), dgain, dbias};
  }
};

}  // namespace

HeadNorm::HeadNorm(int64_t width, const at::TensorOptions& options)
    : gain_(at::ones({width}, options).requires_grad_()), bias_(at::zeros({width}, options).requires_grad_()) {}

at::Tensor HeadNorm::operator()(const at::Tensor& x) const {
  if (x.scalar_type() != gain_.scalar_type()) return NarrowNorm::apply(x, gain_, bias_);
  return at::layer_norm(x, {x.size(-1)}, gain_, bias_, kEpsilon);
}

std::vector<AttentionParameter> HeadNorm::parameters(const std::string& prefix) const {
  return {{prefix + "gain", gain_}, {prefix + "bias", bias_}};
}

}  // namespace polysketch
