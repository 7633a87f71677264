// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/ops/cross_entropy.hpp"
#include "support/cuda_module.hpp"
#include "support/error.hpp"

namespace polysketch::ops {
namespace {

bool serves(const at::Device& device) { return device.is_cuda() && cuda_module() != nullptr; }

bool fits(const CrossEntropyCall& call) {
  const auto type = call.logits.scalar_type();
  return serves(call.logits.device()) && (type == at::kBFloat16 || type == at::kFloat) &&
         call.bias.scalar_type() == at::kFloat;
}

at::Tensor run(const CrossEntropyCall& call) {
  const at::Tensor loss = at::empty({call.logits.size(0)}, call.bias.options()),
                   bias = call.bias.contiguous(), targets = call.targets.contiguous();
  CudaCrossEntropy a{};
  a.logits = call.logits.mutable_data_ptr();
  a.bf16 = call.logits.scalar_type() == at::kBFloat16;
  a.gradient = call.d_bias.defined();
  a.row_stride = call.logits.size(1);
  a.bias = bias.const_data_ptr<float>();
  a.targets = targets.const_data_ptr<int64_t>();
  a.loss = loss.mutable_data_ptr<float>();
  if (a.gradient) {
    require(call.d_bias.is_contiguous(), "cross-entropy adds to a contiguous gradient");
    a.bias_gradient = call.d_bias.mutable_data_ptr<float>();
  }
  a.scale = static_cast<float>(call.scale);
  a.rows = call.logits.size(0);
  a.vocabulary = call.logits.size(1);
  const CudaModule& module = *cuda_module();
  if (!module.cross_entropy(&a, call.logits.device().index())) {
    throw UserError(
        ExitCode::resources,
        fmt::format("the cross-entropy kernel cannot be started: {}", module.last_error()));
  }
  return loss;
}

}  // namespace

const CrossEntropyImplementation cross_entropy_cuda{{"cuda", serves}, fits, run};

}  // namespace polysketch::ops
