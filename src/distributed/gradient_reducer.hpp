// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "distributed/collectives.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// Adds up the gradients of all processes while backward still runs: the flat gradient buffer is
/// cut into buckets (Parameters::buckets()), and a bucket travels as soon as all its gradients are
/// complete. Nothing is copied, but for bf16.
///
/// Only the last micro-batch of a step exchanges anything: begin(), ready() for each parameter,
/// finish().
class GradientReducer {
 public:
  /// scatter: each process needs the sums of Parameters::owned() only (a sharded optimiser); the
  /// rest is undefined afterwards.
  GradientReducer(Parameters& parameters, Collectives& collectives, ReduceType type, bool scatter);

  /// The backward pass that begins now completes the gradients of the step.
  void begin();
  /// The gradient of a parameter is complete on this process. Thread-compatible; called in the same
  /// order everywhere.
  void ready(size_t parameter);
  /// Takes part with what is in the buffer in every exchange that has not begun: the others wait
  /// for it, although this process cannot complete its gradients. Their sums are worth nothing.
  void take_part();
  /// Returns when the sums are there (on a GPU: enqueued).
  void finish();

  /// Of the last step, in seconds; zeros on a GPU and for a process alone. An exchange counts while
  /// it or one before it is under way.
  struct Times {
    double communication = 0;  ///< during which exchanges were under way
    double exposed = 0;        ///< of that, after backward: what the step waited for
    double hidden_share() const { return communication > 0 ? 1 - exposed / communication : 1; }
  };
  const Times& times() const { return times_; }
  /// Bytes that this process put into exchanges in the last step.
  int64_t bytes() const { return bytes_; }

 private:
  void start(size_t bucket);

  Parameters& parameters_;
  Collectives& collectives_;
  ReduceType type_;
  bool scatter_;
  std::vector<std::vector<size_t>> buckets_of_;  // of each parameter
  std::vector<int64_t> parameters_in_, missing_;
  std::vector<at::Tensor> narrow_;  // bf16 copies, by bucket
  std::vector<Pending> pending_;
  size_t next_ = 0;
  int64_t bytes_ = 0;
  Times times_;
};

/// Adds up gradients in an order that does not depend on the number of processes (as
/// Li et al. 2023, EasyScale, do): a step is cut into M logical shards; the gradient of each
/// is computed alone, and shard 0 + shard 1 + … is the same sum, bit for bit, on 1, 2 or M
/// processes. Costs M/W gradient buffers on each process and M/W times the traffic; nothing is
/// hidden behind backward.
class CanonicalReduction {
 public:
  /// shards: M, a multiple of the number of processes; each has M/W consecutive ones.
  CanonicalReduction(Parameters& parameters, Collectives& collectives, int64_t shards);

  /// Takes the gradient buffer as that of the next own shard and leaves zeros in it.
  void take();
  /// After the last own shard: puts the sum over all shards into the gradient buffer, on every
  /// process.
  void finish();

 private:
  Parameters& parameters_;
  Collectives& collectives_;
  int64_t shards_, taken_ = 0;
  std::vector<at::Tensor> kept_;
};

}  // namespace polysketch
