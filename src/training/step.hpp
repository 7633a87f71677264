// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <vector>

#include "data/batch_source.hpp"
#include "distributed/gradient_exchange.hpp"
#include "distributed/step_agreement.hpp"
#include "distributed/world.hpp"
#include "model/attention_probe.hpp"
#include "model/transformer.hpp"
#include "training/adamw.hpp"

namespace polysketch {

/// What a step found out before its update, the same on every process but for `error`.
struct StepResult {
  /// false: a stop was asked for while waiting for data, the step has not happened
  bool happened = true;
  /// somebody could not compute its part: the step does not count, all have exchanged for nothing
  bool failed = false;
  std::exception_ptr error;         ///< of this process, if it is the one
  double loss = 0;                  ///< nats a token
  at::Tensor norm;                  ///< of the gradient, as AdamW::apply wants it
  double gradient_norm = 0;         ///< the same, before clipping
  uint64_t digest = 0;              ///< of the windows of the step
  bool stop = false, save = false;  ///< agreed: somebody was asked to stop, it is time to save
  std::vector<double> computing, waiting;  ///< [W] seconds of each process; waiting: for data
  double exchanging = 0;  ///< seconds that this process spent in exchanges after backward
  std::optional<AttentionProbe> probe;  ///< what was looked at, if asked for, on rank 0
};

/// One optimiser step of one or several processes: micro-batches forward and backward, gradients
/// added up over all processes, loss and norm known; then the update. Training and `bench step`
/// take the same.
class TrainingStep {
 public:
  struct Sizes {
    int64_t batch_tokens = 0;  ///< of a step, over all processes
    int64_t context = 0;       ///< T
    int64_t rows = 1;          ///< sequences of a micro-batch
  };
  /// What this process says of the step and all must know.
  struct Wish {
    bool save = false;   ///< by the clock of rank 0
    bool probe = false;  ///< look at the attention weights
  };

  /// All are kept by reference. seed: of the run, for dropout and probes.
  TrainingStep(Transformer& model, AdamW& optimizer, GradientExchange& exchange, World& world,
               const Sizes& sizes, uint64_t seed);

  /// The gradients of step number `step` (updates done so far) in the buffer of every process. An
  /// error is thrown at once by a process alone; of several, it comes with the result.
  StepResult compute(BatchSource& source, int64_t step, const Wish& wish);

  /// The update of that step.
  void apply(const StepResult& result, double learning_rate, int64_t step);

  const GradientExchange& exchange() const { return exchange_; }

 private:
  bool accumulate(BatchSource& source, int64_t step, const Wish& wish, StepFacts& facts,
                  std::vector<at::Tensor>& nats, StepResult& result);
  ModelInput to_input(const Batch& batch, int64_t step) const;

  Transformer& model_;
  AdamW& optimizer_;
  GradientExchange& exchange_;
  World& world_;
  Sizes sizes_;
  uint64_t seed_;
};

/// Sequences of one forward and backward: what the configuration says, else the largest divisor of
/// `sequences` whose tokens stay within what suits the device.
int64_t micro_batch_rows(const TrainingConfig& config, int64_t context, int64_t sequences,
                         bool gpu);

}  // namespace polysketch
