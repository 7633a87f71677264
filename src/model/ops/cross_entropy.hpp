// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "attention/ops/choice.hpp"

namespace polysketch::ops {

/// Cross-entropy of rows of logits against one class each.
struct CrossEntropyCall {
  at::Tensor logits;   ///< [R, V] compute, contiguous, without bias; with d_bias they become the
                       ///< gradient (softmax − one-hot)·scale, zero rows where not scored
  at::Tensor bias;     ///< [V] wide
  at::Tensor targets;  ///< [R] int64; -1: not scored
  double scale = 1;    ///< of the gradient
  at::Tensor d_bias;   ///< [V] wide += column sums of the gradient; undefined: no gradient wanted
};

/// The loss of each row [R] wide, 0 where not scored.
at::Tensor cross_entropy(const CrossEntropyCall& call);

struct CrossEntropyImplementation : Implementation {
  bool (*fits)(const CrossEntropyCall& call);
  at::Tensor (*run)(const CrossEntropyCall& call);
};

/// fp32, bf16 and fp64; logits are read twice. The same bits for any number of threads.
extern const CrossEntropyImplementation cross_entropy_cpu;

/// fp32 and bf16, the kernel of the CUDA module (kernels/cuda/cross_entropy.cu). Sums of columns
/// are those of the gradient as it is stored.
extern const CrossEntropyImplementation cross_entropy_cuda;

/// LibTorch calls; keeps three copies of the logits in the wide type.
extern const CrossEntropyImplementation cross_entropy_aten;

}  // namespace polysketch::ops
