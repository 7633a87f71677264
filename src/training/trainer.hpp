// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/save_attempts.hpp"
#include "config/load.hpp"
#include "data/batch_stream.hpp"
#include "distributed/gradient_reducer.hpp"
#include "distributed/step_agreement.hpp"
#include "distributed/stragglers.hpp"
#include "distributed/world.hpp"
#include "model/cost.hpp"
#include "model/transformer.hpp"
#include "reporting/metric_sink.hpp"
#include "support/error.hpp"
#include "training/adamw.hpp"
#include "training/train_state.hpp"

namespace polysketch {

/// One training run in its folder, from the first step or from the newest checkpoint there: the
/// same command starts and continues. Alone, or as one of several processes that a launcher has
/// started (launch/place.hpp): then each takes its part of every step, and rank 0 writes.
///
/// A step: micro-batches from the BatchStream, forward and backward each, one optimiser update, one
/// record. At step boundaries: validation, checkpoint, stop. A run that was stopped at any moment
/// and continued equals one that was not, bit for bit on the CPU.
class Trainer {
 public:
  struct Options {
    /// continue although a key that changes the meaning of the run differs from the checkpoint's
    bool allow_config_change = false;
  };

  /// Takes the run folder (lock), reads data description and tokenizer, builds the model, loads the
  /// newest checkpoint if there is one. Throws UserError: 73/77 folder, 65/66 data or tokenizer, 76
  /// other processes, 78 configuration, 81 checkpoint.
  Trainer(const ResolvedConfig& resolved, const Options& options);
  ~Trainer();

  /// Trains to the last step. Returns ExitCode::done, or ExitCode::stopped after a stop signal with
  /// everything saved.
  ExitCode run();

 private:
  // Set-up.
  void set_up(const ResolvedConfig& resolved, const Options& options);
  Peers peers();
  void compare_processes();
  void prepare_folder(const ResolvedConfig& resolved);
  void build_model();
  void restore(const CheckpointStore::Loaded& checkpoint);
  void check_unchanged(const CheckpointStore::Loaded& checkpoint, const Options& options) const;
  void announce() const;

  // The loop.
  enum class StepOutcome { done, stopped };
  ExitCode train();
  StepOutcome train_step();
  // exchanging: seconds this process waited for the sums
  void after_update(const StepFacts& facts, double exchanging);
  bool validate();  ///< false: interrupted by a stop
  std::vector<TensorGroup> state_tensors(std::vector<at::Tensor>& storage);
  /// saved_step_ tells whether it succeeded; throws UserError 74 when two in a row fail
  void save();
  ExitCode finish(bool stopped);
  void record(const std::string& event, nlohmann::ordered_json fields);
  ModelInput to_input(const Batch& batch) const;

  bool alone() const { return world_->size() == 1; }
  bool canonical() const { return config_.distributed.reduce == Reduce::canonical; }
  /// Sequences whose gradients are added up in one buffer before anything else: of a step of this
  /// process, or of a shard.
  int64_t sequences_per_sum() const;

  Config config_;
  std::string run_folder_;
  std::unique_ptr<RunLock> lock_;
  at::Device device_ = at::kCPU;
  std::unique_ptr<World> world_;  // outlives all that exchanges
  std::unique_ptr<Corpus> corpus_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientReducer> reducer_;       // of several processes, unless canonical
  std::unique_ptr<CanonicalReduction> reduction_;  // canonical only
  std::unique_ptr<Stragglers> stragglers_;
  std::unique_ptr<CheckpointStore> checkpoints_;
  SaveAttempts save_attempts_;
  std::unique_ptr<BatchStream> batches_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
  ModelCost cost_;
  TrainState state_;
  int64_t sequences_per_step_ = 1;  ///< G
  int64_t rows_ = 1;                ///< sequences of a micro-batch
  int64_t saved_step_ = -1;
  std::chrono::steady_clock::time_point saved_at_ = std::chrono::steady_clock::now();
  bool stop_agreed_ = false, save_agreed_ = false;  // what all processes decided with the last step
};

/// Sequences of one forward and backward: what the configuration says, else the largest divisor of
/// `sequences` whose tokens stay within what suits the device.
int64_t micro_batch_rows(const TrainingConfig& config, int64_t context, int64_t sequences,
                         bool gpu);

}  // namespace polysketch
