// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "kernels/cpu/row_kernels.hpp"
#include "model/ops/cross_entropy.hpp"
#include "model/ops/row_work.hpp"

namespace polysketch::ops {
namespace {

bool serves(const at::Device& device) { return device.is_cpu(); }

at::Tensor run(const CrossEntropyCall& call) {
  const int64_t rows = call.logits.size(0), vocabulary = call.logits.size(1);
  at::Tensor loss = at::empty({rows}, call.bias.options());
  with_type(call.logits.scalar_type(), [&]<class A>() {
    using R = kernels::Real<A>;
    kernels::CrossEntropy<A> a{};
    a.logits = pointer<A>(call.logits);
    a.row_stride = vocabulary;
    a.bias = pointer<R>(call.bias);
    a.targets = pointer<int64_t>(call.targets);
    a.loss = pointer<R>(loss);
    a.scale = static_cast<R>(call.scale);
    a.vocabulary = vocabulary;
    if (!call.d_bias.defined()) {
      at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
        kernels::cross_entropy_loss(a, begin, end);
      });
      return;
    }
    const int64_t pieces = pieces_for(rows);
    at::Tensor sums = at::zeros({pieces, vocabulary}, call.bias.options());
    in_pieces(rows, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
      kernels::CrossEntropy<A> mine = a;
      mine.dbias = pointer<R>(sums) + piece * vocabulary;
      kernels::cross_entropy(mine, begin, end);
    });
    call.d_bias.add_(sums.sum(0));
  });
  return loss;
}

}  // namespace

const CrossEntropyImplementation cross_entropy_cpu{
    {"cpu", serves, true}, [](const CrossEntropyCall& call) { return call.logits.is_cpu(); }, run};

}  // namespace polysketch::ops
