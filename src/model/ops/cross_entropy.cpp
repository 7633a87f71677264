// SPDX-License-Identifier: Apache-2.0
#include "model/ops/cross_entropy.hpp"

#include "support/error.hpp"

namespace polysketch::ops {
namespace {

const Choice<CrossEntropyImplementation> choice{
    "cross_entropy", {&cross_entropy_cpu, &cross_entropy_cuda, &cross_entropy_aten}};

}  // namespace

at::Tensor cross_entropy(const CrossEntropyCall& call) {
  require(call.logits.is_contiguous(), "cross-entropy wants contiguous logits");
  return choice(call).run(call);
}

}  // namespace polysketch::ops
