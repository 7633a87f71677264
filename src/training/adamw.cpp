// SPDX-License-Identifier: Apache-2.0
#include "training/adamw.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "attention/ops/choice.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

const ops::Operation operation{
    "adamw",
    {{"cpu", [](const at::Device& device) { return device.is_cpu(); }, true},
     {"aten", ops::any_device, true}}};

bool has_kernels(const at::Tensor& flat) {
  return flat.is_cpu() && flat.scalar_type() == at::kFloat && operation.permits("cpu");
}

}  // namespace

AdamW::AdamW(Parameters& parameters, const OptimizerConfig& config, Collectives* sharded_over)
    : parameters_(parameters),
      config_(config),
      sharded_over_(parameters.world() > 1 ? sharded_over : nullptr) {
  const int64_t size = parameters_.flat_gradient().numel();
  const std::vector<FlatRange> ranges =
      sharded() ? parameters_.owned() : std::vector<FlatRange>{{0, size}};
  int64_t kept = 0;
  for (size_t range = 0; range < ranges.size(); ++range) {
    const auto& infos = parameters_.infos();
    for (size_t i = 0; i < infos.size(); ++i) {
      const int64_t next = i + 1 < infos.size() ? infos[i + 1].offset : size;
      const int64_t begin = std::max(ranges[range].begin, infos[i].offset),
                    end = std::min(ranges[range].end, next);
      if (begin >= end) continue;
      if (!pieces_.empty() && pieces_.back().range == range &&
          pieces_.back().decay == infos[i].decay) {
        pieces_.back().count += end - begin;
      } else {
        pieces_.push_back({begin, kept + begin - ranges[range].begin, end - begin, range,
                           begin - ranges[range].begin, infos[i].decay});
      }
    }
    kept += ranges[range].count();
  }
  first_ = at::zeros({kept}, parameters_.flat_gradient().options());
  second_ = at::zeros_like(first_);
}

at::Tensor AdamW::master_of(const Piece& piece) {
  if (!sharded()) return parameters_.flat_master().narrow(0, piece.flat, piece.count);
  return parameters_.owned_master(piece.range).narrow(0, piece.within, piece.count);
}

at::Tensor AdamW::owned_part(const at::Tensor& moment, size_t range) const {
  const std::vector<FlatRange>& owned = parameters_.owned();
  if (!sharded()) return moment.narrow(0, owned.at(range).begin, owned[range].count());
  int64_t before = 0;
  for (size_t i = 0; i < range; ++i) before += owned[i].count();
  return moment.narrow(0, before, owned.at(range).count());
}

void AdamW::assign(at::Tensor& moment, size_t parameter, const at::Tensor& value) const {
  const ParameterInfo& info = parameters_.infos().at(parameter);
  const at::Tensor flat = value.reshape({-1});
  if (!sharded()) {
    moment.narrow(0, info.offset, info.count).copy_(flat);
    return;
  }
  for (size_t i = 0; i < parameters_.owned().size(); ++i) {
    const FlatRange& range = parameters_.owned()[i];
    const int64_t begin = std::max(range.begin, info.offset),
                  end = std::min(range.end, info.offset + info.count);
    if (begin < end)
      owned_part(moment, i)
          .narrow(0, begin - range.begin, end - begin)
          .copy_(flat.narrow(0, begin - info.offset, end - begin));
  }
}

// Squares are added up in blocks of fixed size, and the blocks in order, wherever they were
// computed.
double AdamW::norm_by_kernels() {
  const at::Tensor& gradient = parameters_.flat_gradient();
  const int64_t count = gradient.numel(),
                blocks = (count + kernels::kSquareBlock - 1) / kernels::kSquareBlock;
  std::vector<double> partial(static_cast<size_t>(blocks), 0.0);
  const float* g = gradient.data_ptr<float>();
  const auto sum = [&](int64_t first, int64_t last) {
    at::parallel_for(first, last, 4, [&](int64_t begin, int64_t end) {
      kernels::sum_of_squares(g, count, partial.data(), begin, end);
    });
  };
  if (sharded()) {
    for (const FlatRange& range : parameters_.owned())
      sum(range.begin / kernels::kSquareBlock, range.end / kernels::kSquareBlock);
    sharded_over_->all_reduce(partial, ReduceOperation::sum, "gradient norm");
  } else {
    sum(0, blocks);
  }
  double all = 0;
  for (const double value : partial) all += value;
  return std::sqrt(all);
}

at::Tensor AdamW::square_sum_of_owned() const {
  const at::Tensor& gradient = parameters_.flat_gradient();
  at::Tensor sum = at::zeros({1}, gradient.options());
  for (const FlatRange& range : parameters_.owned())
    sum += gradient.narrow(0, range.begin, range.count()).square().sum();
  return sum;
}

at::Tensor AdamW::gradient_norm() {
  const at::NoGradGuard no_grad;
  const at::Tensor& gradient = parameters_.flat_gradient();
  if (has_kernels(gradient)) return at::scalar_tensor(norm_by_kernels(), at::kDouble);
  if (!sharded()) return at::norm(gradient);
  at::Tensor sum = square_sum_of_owned();
  sharded_over_->all_reduce(sum, ReduceOperation::sum, "gradient norm")->wait();
  return sum.sqrt().squeeze();
}

void AdamW::apply(double learning_rate, int64_t update, const at::Tensor& norm) {
  const at::NoGradGuard no_grad;
  const at::Tensor& gradient = parameters_.flat_gradient();
  if (has_kernels(gradient)) {
    const double length = norm.item<double>();
    if (!std::isfinite(length)) return;
    const double scale = config_.clip > 0 ? std::min(1.0, config_.clip / (length + 1e-6)) : 1.0;
    apply_with_kernels(learning_rate, update, static_cast<float>(scale));
  } else if (gradient.scalar_type() == at::kFloat) {
    apply_fused(learning_rate, update, norm);
  } else {
    apply_generic(learning_rate, update, norm);
  }
}

void AdamW::apply_with_kernels(double learning_rate, int64_t update, float gradient_scale) {
  at::Tensor& compute = parameters_.flat_compute();
  const bool copies = compute.scalar_type() == at::kBFloat16;
  for (const Piece& piece : pieces_) {
    kernels::AdamWStep a{};
    a.parameter = master_of(piece).data_ptr<float>();
    a.first_moment = first_.data_ptr<float>() + piece.kept;
    a.second_moment = second_.data_ptr<float>() + piece.kept;
    a.gradient = parameters_.flat_gradient().data_ptr<float>() + piece.flat;
    a.copy = copies ? static_cast<kernels::bf16*>(compute.data_ptr()) + piece.flat : nullptr;
    a.gradient_scale = &gradient_scale;
    a.learning_rate = learning_rate;
    a.beta1 = config_.beta1;
    a.beta2 = config_.beta2;
    a.epsilon = config_.epsilon;
    a.weight_decay = piece.decay ? config_.weight_decay : 0;
    a.correction1 = 1 - std::pow(config_.beta1, static_cast<double>(update));
    a.correction2 = 1 - std::pow(config_.beta2, static_cast<double>(update));
    a.zero_gradient = true;
    at::parallel_for(0, piece.count, 65536,
                     [&](int64_t begin, int64_t end) { kernels::adamw_step(a, begin, end); });
  }
  finish_update(/*copies_written=*/true);
}

// After the pieces: gradients are zero everywhere, and what others have updated is fetched from
// them, a bucket ahead of its use.
void AdamW::finish_update(bool copies_written) {
  if (!sharded()) {
    if (!copies_written) {
      parameters_.flat_gradient().zero_();
      parameters_.refresh_compute();
    }
    return;
  }
  parameters_.flat_gradient().zero_();
  const auto& buckets = parameters_.buckets();
  std::vector<at::Tensor> whole(buckets.size());
  std::vector<Pending> pending(buckets.size());
  const auto begin = [&](size_t i) {
    const at::Tensor own = parameters_.owned_master(i);
    whole[i] = parameters_.masters_sharded()
                   ? at::empty({buckets[i].count()}, own.options())
                   : parameters_.flat_master().narrow(0, buckets[i].begin, buckets[i].count());
    pending[i] = sharded_over_->all_gather(whole[i], own, "parameters " + std::to_string(i));
  };
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (i == 0) begin(0);
    if (i + 1 < buckets.size()) begin(i + 1);
    pending[i]->wait();
    parameters_.publish(buckets[i], whole[i]);
    whole[i].reset();
  }
}

// LibTorch's fused kernel, for devices. The clip factor and the refusal of a norm that is not
// finite stay on the device: the kernel divides the gradients by `scale` and does nothing at all
// where `refuse` is 1.
void AdamW::apply_fused(double learning_rate, int64_t update, const at::Tensor& norm) {
  const at::Tensor scale =
      config_.clip > 0 ? at::clamp_min((norm + 1e-6) / config_.clip, 1.0) : at::ones_like(norm);
  const at::Tensor refuse = at::logical_not(at::isfinite(norm)).to(at::kFloat);
  const at::Tensor count = at::full_like(norm, static_cast<double>(update));
  at::Tensor& gradient = parameters_.flat_gradient();
  for (const Piece& piece : pieces_) {
    const auto moment = [&](const at::Tensor& all) {
      return all.narrow(0, piece.kept, piece.count);
    };
    at::_fused_adamw_({master_of(piece)}, {gradient.narrow(0, piece.flat, piece.count)},
                      {moment(first_)}, {moment(second_)}, {}, {count}, learning_rate,
                      config_.beta1, config_.beta2, piece.decay ? config_.weight_decay : 0,
                      config_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, scale, refuse);
  }
  finish_update(/*copies_written=*/false);
}

// One tensor operation after another, in any precision: the plain version.
void AdamW::apply_generic(double learning_rate, int64_t update, const at::Tensor& norm) {
  at::Tensor& gradient = parameters_.flat_gradient();
  const at::Tensor finite = norm.isfinite();
  if (config_.clip > 0) gradient.mul_(at::clamp_max(config_.clip / (norm + 1e-6), 1.0));
  for (const Piece& piece : pieces_) {
    at::Tensor g = gradient.narrow(0, piece.flat, piece.count), p = master_of(piece);
    at::Tensor m = first_.narrow(0, piece.kept, piece.count),
               v = second_.narrow(0, piece.kept, piece.count);
    at::Tensor new_m = at::lerp(m, g, 1 - config_.beta1);
    at::Tensor new_v = v.mul(config_.beta2).addcmul_(g, g, 1 - config_.beta2);
    const double c1 = 1 - std::pow(config_.beta1, static_cast<double>(update)),
                 c2 = 1 - std::pow(config_.beta2, static_cast<double>(update));
    at::Tensor change = new_m.div(c1).div_(new_v.div(c2).sqrt_().add_(config_.epsilon));
    if (piece.decay) change.add_(p, config_.weight_decay);
    p.copy_(at::where(finite, p.sub(change, learning_rate), p));
    m.copy_(at::where(finite, new_m, m));
    v.copy_(at::where(finite, new_v, v));
  }
  finish_update(/*copies_written=*/false);
}

}  // namespace polysketch
