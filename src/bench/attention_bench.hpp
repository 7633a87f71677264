// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attention/attention.hpp"
#include "bench/attention_variants.hpp"

namespace polysketch {

struct AttentionBenchOptions {
  std::vector<AttentionVariant> variants;
  std::vector<int64_t> lengths;  ///< ascending
  AttentionShape shape{12, 64};
  int64_t batch = 1;
  at::Device device = at::kCPU;
  at::ScalarType type = at::kFloat;  ///< of q, k, v: fp32 or bf16
  int rounds = 5;
  /// a forward and backward that would take longer is left out; 0: no limit
  double limit_seconds = 0;
  int64_t memory_limit = 0;  ///< bytes; 0: what the device has available
  uint64_t seed = 1;
  std::function<void(int64_t done, const std::string& now)> progress;
};

/// Steps that `progress` counts up to.
int64_t progress_steps(const AttentionBenchOptions& options);

/// Of one call, over the rounds.
struct CallTime {
  double median = 0, least = 0, most = 0;  ///< seconds
};

/// One mechanism at one length. Figures are of all B sequences together.
struct AttentionFigures {
  std::string kind;
  int64_t length = 0;
  int64_t tokens = 0;    ///< B · T
  std::string left_out;  ///< why nothing was measured; empty: everything below was
  CallTime forward;      ///< as in evaluation, without gradients
  CallTime both;         ///< forward for training, then backward to q, k, v and the learned tensors
  /// tensors allocated at most during the call; q, k, v and the output's gradient are not in it
  int64_t forward_peak_bytes = 0;
  int64_t peak_bytes = 0;  ///< the same of forward and backward
  FlopCount forward_flops;
  FlopCount flops;  ///< of forward and backward

  double tokens_per_second() const { return static_cast<double>(tokens) / both.median; }
  double microseconds_per_token() const { return 1e6 * both.median / static_cast<double>(tokens); }
  double flops_per_second() const {
    return flops.causal / both.median;
  }  ///< counting the pairs that exist
};

/// Measures every mechanism at every length, ordered by length, then as `variants` are. In each
/// round every mechanism is called once, so that a machine that slows down slows all of them. What
/// would not fit into memory or take too long is left out and says so: both are foretold from the
/// costs and from the next shorter length, which for this purpose may be one that nobody asked for.
std::vector<AttentionFigures> bench_attention(const AttentionBenchOptions& options);

}  // namespace polysketch
