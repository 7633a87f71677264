// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "model/ops/cross_entropy.hpp"

namespace polysketch::ops {
namespace {

at::Tensor run(const CrossEntropyCall& call) {
  at::Tensor wide = call.logits.to(call.bias.scalar_type()).add_(call.bias);
  at::Tensor log_probability = at::log_softmax(wide, 1);
  at::Tensor scored = call.targets.ge(0), safe = call.targets.clamp_min(0).unsqueeze(1);
  const at::Tensor loss = at::where(scored, -log_probability.gather(1, safe).squeeze(1),
                                    at::zeros({}, call.bias.options()));
  if (!call.d_bias.defined()) return loss;
  at::Tensor gradient = log_probability.exp_();
  gradient.scatter_add_(1, safe, at::full_like(safe, -1, gradient.options()));
  gradient.mul_(scored.to(gradient.scalar_type()).mul_(call.scale).unsqueeze(1));
  call.d_bias.add_(gradient.sum(0));
  call.logits.copy_(gradient);
  return loss;
}

}  // namespace

const CrossEntropyImplementation cross_entropy_aten{
    {"aten", any_device, true}, [](const CrossEntropyCall&) { return true; }, run};

}  // namespace polysketch::ops
