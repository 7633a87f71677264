// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// AdamW with decoupled decay on matrices only, bias-corrected moments, epsilon outside the root (METHOD §4, golden README "train"), on the
/// flat buffers: the norm reads the gradients once, the step walks masters, moments and gradients once, writes the compute copies and
/// leaves the gradients zero.
class AdamW {
 public:
  AdamW(Parameters& parameters, const OptimizerConfig& config);

  /// What one update did.
  struct Result {
    at::Tensor gradient_norm;  ///< scalar fp64 (CPU) or fp32 (device): Euclidean norm of all gradients before clipping
    bool applied = true;       ///< false: the norm was not finite and nothing was changed (known at once on the CPU only)
  };

  /// One update with the gradients as they are. `update` counts from 1 (bias correction). No wait for the device.
  Result step(double learning_rate, int64_t update);

  at::Tensor& first_moment() { return first_; }    ///< flat, fp32, laid out like the masters
  at::Tensor& second_moment() { return second_; }  ///< flat

 private:
  struct Range {
    int64_t begin, end;
    bool decay;
  };
  void step_with_kernels(double learning_rate, int64_t update, float gradient_scale);
  void step_fused(double learning_rate, int64_t update, const at::Tensor& norm);
  void step_generic(double learning_rate, int64_t update, const at::Tensor& norm);

  Parameters& parameters_;
  OptimizerConfig config_;
  std::vector<Range> ranges_;
  at::Tensor first_, second_;
};

}  // namespace polysketch
