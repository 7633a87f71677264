// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/config.hpp"
#include "distributed/gradient_exchange.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// Adds up the gradients of all processes while backward still runs: the flat gradient buffer is
/// cut into buckets (Parameters::buckets()), and a bucket travels as soon as all its gradients are
/// complete. Nothing is copied, but for bf16.
///
/// Only the last micro-batch of a step exchanges anything.
class GradientReducer final : public GradientExchange {
 public:
  /// scatter: each process needs the sums of Parameters::owned() only (a sharded optimiser); the
  /// rest is undefined afterwards.
  GradientReducer(Parameters& parameters, Collectives& collectives, ReduceType type, bool scatter);

  std::function<void(size_t parameter)> last_backward() override;
  void finish() override;
  void finish_without_part() override;
  Times times() const override { return times_; }

  /// The two halves of last_backward(). Buckets leave in their order, whatever the order in which
  /// parameters become ready.
  void begin();
  void ready(size_t parameter);

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
  bool begun_ = false;
  Times times_;
};

/// Adds up gradients in an order that does not depend on the number of processes (as
/// Li et al. 2023, EasyScale, do): a step is cut into M logical shards; the gradient of each
/// is computed alone, and shard 0 + shard 1 + … is the same sum, bit for bit, on 1, 2 or M
/// processes. Costs M/W gradient buffers on each process and M/W times the traffic; nothing is
/// hidden behind backward.
class CanonicalReduction final : public GradientExchange {
 public:
  /// shards: M, a multiple of the number of processes; each has M/W consecutive ones.
  CanonicalReduction(Parameters& parameters, Collectives& collectives, int64_t shards);

  int64_t sums() const override { return shards_ / collectives_.world(); }
  /// Takes the gradient buffer as that of the next own shard and leaves zeros in it.
  void sum_complete() override;
  /// Puts the sum over all shards into the gradient buffer, on every process.
  void finish() override;
  void finish_without_part() override;

 private:
  Parameters& parameters_;
  Collectives& collectives_;
  int64_t shards_, taken_ = 0;
  std::vector<at::Tensor> kept_;
};

}  // namespace polysketch
