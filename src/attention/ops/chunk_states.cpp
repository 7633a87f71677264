// SPDX-License-Identifier: Apache-2.0
#include "attention/ops/chunk_states.hpp"

#include <ATen/ATen.h>

#include "attention/arithmetic.hpp"

namespace polysketch::ops {
namespace {

const Choice<ChunkStatesImplementation> choice{"chunk_states",
                                               {&chunk_states_cpu, &chunk_states_aten}};

}  // namespace

ChunkStatesResult chunk_states_forward(const ChunkStatesCall& call) {
  const at::NoGradGuard no_grad;
  const auto wide = call.a.options().dtype(wide_type(call.a));
  const ChunkStatesResult result{at::zeros(call.v.sizes(), wide),
                                 at::zeros({call.v.size(0), call.v.size(1), call.v.size(2)}, wide)};
  choice(call).forward(call, result);
  return result;
}

ChunkStatesGradients chunk_states_backward(const ChunkStatesCall& call,
                                           const at::Tensor& sum_gradient,
                                           const at::Tensor& row_sum_gradient) {
  const at::NoGradGuard no_grad;
  const ChunkStatesGradients back{at::zeros(call.a.sizes(), call.a.options()),
                                  at::zeros(call.b.sizes(), call.b.options()),
                                  at::zeros(call.v.sizes(), call.v.options())};
  choice(call).backward(call, sum_gradient, row_sum_gradient, back);
  return back;
}

std::vector<std::pair<int64_t, int64_t>> long_documents(const ChunkStatesCall& call, int64_t row) {
  const int64_t length = call.a.size(2);
  std::vector<std::pair<int64_t, int64_t>> found;
  const int32_t* starts = call.first_keys.defined()
                              ? call.first_keys.host.const_data_ptr<int32_t>() + row * length
                              : nullptr;
  int64_t begin = 0;
  for (int64_t i = 1; i <= length; ++i) {
    if (i < length && (starts == nullptr || starts[i] != i)) continue;
    if (i - begin > call.block) found.emplace_back(begin, i - begin);
    begin = i;
  }
  return found;
}

at::Tensor expand_features(const at::Tensor& x, int64_t power) {
  if (power == 1) return x;
  return (x.unsqueeze(3) * x.unsqueeze(2)).flatten(2);
}

}  // namespace polysketch::ops
