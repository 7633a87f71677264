// SPDX-License-Identifier: Apache-2.0
#include "attention/norm.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "kernels/cpu/row_kernels.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using kernels::bf16;

constexpr int64_t kStrips = 32;   // over which gradients of gain and bias are added up in order,
                                  // whatever the number of threads
constexpr int64_t kGrain = 1024;  // rows that are worth a thread

bool has_kernels(const at::Tensor& x, const at::Tensor& gain) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && gain.scalar_type() == at::kFloat;
}

const bf16* rows_of(const at::Tensor& x) { return static_cast<const bf16*>(x.const_data_ptr()); }

/// Layer norm of narrow rows in the type of the gain. LibTorch's own for such a mixture adds up the
/// gradients of gain and bias in the narrow type, which leaves them a few percent off.
struct NarrowNorm : public torch::autograd::Function<NarrowNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& gain, const at::Tensor& bias) {
    if (!has_kernels(x, gain)) {
      context->save_for_backward({x, gain, bias});
      return at::layer_norm(x.to(gain.scalar_type()), {x.size(-1)}, gain, bias, HeadNorm::kEpsilon)
          .to(x.scalar_type());
    }
    const at::Tensor rows = x.contiguous(), y = at::empty(x.sizes(), x.options()),
                     wide_gain = gain.contiguous(), wide_bias = bias.contiguous();
    const int64_t count = x.numel() / std::max<int64_t>(x.size(-1), 1);
    const at::Tensor mean = at::empty({count}, gain.options()),
                     rstd = at::empty({count}, gain.options());
    kernels::LayerNormForward<bf16, bf16> job{};
    job.x = rows_of(rows);
    job.gain = wide_gain.const_data_ptr<float>();
    job.bias = wide_bias.const_data_ptr<float>();
    job.y = static_cast<bf16*>(y.mutable_data_ptr());
    job.mean = mean.mutable_data_ptr<float>();
    job.rstd = rstd.mutable_data_ptr<float>();
    job.width = x.size(-1);
    job.epsilon = HeadNorm::kEpsilon;
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      kernels::layer_norm_forward(job, begin, end);
    });
    context->save_for_backward({x, gain, bias, mean, rstd});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    require(!at::GradMode::is_enabled(), "the norm of a head has no second derivative");
    const auto kept = context->get_saved_variables();
    const at::Tensor &gain = kept[1], &bias = kept[2];
    const auto width = kept[0].size(-1);
    if (has_kernels(kept[0], gain)) return backward_with_kernels(kept, gradients[0]);
    const at::Tensor x = kept[0].to(gain.scalar_type()).contiguous(),
                     dy = gradients[0].to(gain.scalar_type()).contiguous();
    const auto [y, mean, rstd] = at::native_layer_norm(x, {width}, gain, bias, HeadNorm::kEpsilon);
    const auto [dx, dgain, dbias] =
        at::native_layer_norm_backward(dy, x, {width}, mean, rstd, gain, bias, {true, true, true});
    return {dx.to(kept[0].scalar_type()), dgain, dbias};
  }

  static torch::autograd::variable_list backward_with_kernels(
      const torch::autograd::variable_list& kept, const at::Tensor& gradient) {
    const at::Tensor x = kept[0].contiguous(), dy = gradient.contiguous(),
                     gain = kept[1].contiguous();
    const int64_t width = x.size(-1), count = kept[3].numel(),
                  strip = std::max<int64_t>(1, (count + kStrips - 1) / kStrips);
    const int64_t strips = (count + strip - 1) / strip;
    const at::Tensor dx = at::empty(x.sizes(), x.options()),
                     sums = at::zeros({2, strips, width}, gain.options());
    auto* sum = sums.mutable_data_ptr<float>();
    kernels::LayerNormBackward<bf16, bf16> job{};
    job.dy = rows_of(dy);
    job.x = rows_of(x);
    job.gain = gain.const_data_ptr<float>();
    job.mean = kept[3].const_data_ptr<float>();
    job.rstd = kept[4].const_data_ptr<float>();
    job.dx = static_cast<bf16*>(dx.mutable_data_ptr());
    job.width = width;
    at::parallel_for(
        0, strips, std::max<int64_t>(1, kGrain / strip), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            kernels::LayerNormBackward<bf16, bf16> mine = job;
            mine.dgain = sum + i * width;
            mine.dbias = sum + (strips + i) * width;
            kernels::layer_norm_backward(mine, i * strip, std::min(count, (i + 1) * strip));
          }
        });
    const at::Tensor total = sums.sum(1);
    return {dx, total[0], total[1]};
  }
};

}  // namespace

HeadNorm::HeadNorm(int64_t width, const at::TensorOptions& options)
    : gain_(at::ones({width}, options).requires_grad_()),
      bias_(at::zeros({width}, options).requires_grad_()) {}

at::Tensor HeadNorm::operator()(const at::Tensor& x) const {
  if (x.scalar_type() != gain_.scalar_type()) return NarrowNorm::apply(x, gain_, bias_);
  return at::layer_norm(x, {x.size(-1)}, gain_, bias_, kEpsilon);
}

std::vector<AttentionParameter> HeadNorm::parameters(const std::string& prefix) const {
  return {{prefix + "gain", gain_}, {prefix + "bias", bias_}};
}

}  // namespace polysketch
