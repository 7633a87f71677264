// SPDX-License-Identifier: Apache-2.0
#include "training/adamw.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "kernels/kernels.hpp"
#include "model/ops.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

bool has_kernels(const at::Tensor& flat) { return flat.is_cpu() && flat.scalar_type() == at::kFloat && !ops::ForceGeneric::active(); }

}  // namespace

AdamW::AdamW(Parameters& parameters, const OptimizerConfig& config) : parameters_(parameters), config_(config) {
  first_ = at::zeros_like(parameters_.flat_master());
  second_ = at::zeros_like(parameters_.flat_master());
  const auto& infos = parameters_.infos();
  for (size_t i = 0; i < infos.size(); ++i) {
    const int64_t end = i + 1 < infos.size() ? infos[i + 1].offset : parameters_.flat_master().numel();
    if (!ranges_.empty() && ranges_.back().decay == infos[i].decay) {
      ranges_.back().end = end;
    } else {
      ranges_.push_back({infos[i].offset, end, infos[i].decay});
    }
  }
}

AdamW::Result AdamW::step(double learning_rate, int64_t update) {
  at::NoGradGuard no_grad;
  at::Tensor& gradient = parameters_.flat_gradient();
  if (!has_kernels(gradient)) {
    const at::Tensor norm = at::norm(gradient);
    if (gradient.scalar_type() == at::kFloat) {
      step_fused(learning_rate, update, norm);
    } else {
      step_generic(learning_rate, update, norm);
    }
    return {norm, true};
  }
  const int64_t count = gradient.numel(), blocks = (count + kernels::kSquareBlock - 1) / kernels::kSquareBlock;
  std::vector<double> partial(static_cast<size_t>(blocks));
  const float* g = gradient.data_ptr<float>();
  at::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) { kernels::sum_of_squares(g, count, partial.data(), begin, end); });
  double sum = 0;
  for (const double value : partial) sum += value;
  const double norm = std::sqrt(sum);
  Result result{at::scalar_tensor(norm, at::kDouble), std::isfinite(norm)};
  if (result.applied) {
    const double scale = config_.clip > 0 ? std::min(1.0, config_.clip / (norm + 1e-6)) : 1.0;
    step_with_kernels(learning_rate, update, static_cast<float>(scale));
  }
  return result;
}

void AdamW::step_with_kernels(double learning_rate, int64_t update, float gradient_scale) {
  at::Tensor& compute = parameters_.flat_compute();
  const bool copies = compute.scalar_type() == at::kBFloat16;
  for (const Range& range : ranges_) {
    kernels::AdamWStep a{};
    a.parameter = parameters_.flat_master().data_ptr<float>();
    a.first_moment = first_.data_ptr<float>();
    a.second_moment = second_.data_ptr<float>();
    a.gradient = parameters_.flat_gradient().data_ptr<float>();
    a.copy = copies ? static_cast<kernels::bf16*>(compute.data_ptr()) : nullptr;
    a.gradient_scale = &gradient_scale;
    a.learning_rate = learning_rate;
    a.beta1 = config_.beta1;
    a.beta2 = config_.beta2;
    a.epsilon = config_.epsilon;
    a.weight_decay = range.decay ? config_.weight_decay : 0;
    a.correction1 = 1 - std::pow(config_.beta1, static_cast<double>(update));
    a.correction2 = 1 - std::pow(config_.beta2, static_cast<double>(update));
    a.zero_gradient = true;
    at::parallel_for(range.begin, range.end, 65536, [&](int64_t begin, int64_t end) { kernels::adamw_step(a, begin, end); });
  }
}

// LibTorch's fused kernel, for devices. The clip factor and the refusal of a norm that is not finite stay on the device: the kernel divides
// the gradients by `scale` and does nothing at all where `refuse` is 1.
void AdamW::step_fused(double learning_rate, int64_t update, const at::Tensor& norm) {
  const at::Tensor scale = config_.clip > 0 ? at::clamp_min((norm + 1e-6) / config_.clip, 1.0) : at::ones_like(norm);
  const at::Tensor refuse = at::logical_not(at::isfinite(norm)).to(at::kFloat);
  const at::Tensor count = at::full_like(norm, static_cast<double>(update));
  at::Tensor& gradient = parameters_.flat_gradient();
  for (const Range& range : ranges_) {
    const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, range.begin, range.end - range.begin); };
    at::_fused_adamw_({part(parameters_.flat_master())}, {part(gradient)}, {part(first_)}, {part(second_)}, {}, {count}, learning_rate,
                      config_.beta1, config_.beta2, range.decay ? config_.weight_decay : 0, config_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false, scale, refuse);
  }
  gradient.zero_();
  parameters_.refresh_compute();
}

// One tensor operation after another, in any precision: the plain version.
void AdamW::step_generic(double learning_rate, int64_t update, const at::Tensor& norm) {
  at::Tensor& gradient = parameters_.flat_gradient();
  const at::Tensor finite = norm.isfinite();
  if (config_.clip > 0) gradient.mul_(at::clamp_max(config_.clip / (norm + 1e-6), 1.0));
  for (const Range& range : ranges_) {
    const auto part = [&](at::Tensor& flat) { return flat.narrow(0, range.begin, range.end - range.begin); };
    at::Tensor g = part(gradient), p = part(parameters_.flat_master()), m = part(first_), v = part(second_);
    at::Tensor new_m = at::lerp(m, g, 1 - config_.beta1);
    at::Tensor new_v = v.mul(config_.beta2).addcmul_(g, g, 1 - config_.beta2);
    const double c1 = 1 - std::pow(config_.beta1, static_cast<double>(update)),
                 c2 = 1 - std::pow(config_.beta2, static_cast<double>(update));
    at::Tensor change = new_m.div(c1).div_(new_v.div(c2).sqrt_().add_(config_.epsilon));
    if (range.decay) change.add_(p, config_.weight_decay);
    p.copy_(at::where(finite, p.sub(change, learning_rate), p));
    m.copy_(at::where(finite, new_m, m));
    v.copy_(at::where(finite, new_v, v));
  }
  gradient.zero_();
  parameters_.refresh_compute();
}

}  // namespace polysketch
