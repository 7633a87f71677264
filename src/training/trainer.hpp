// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/run_folder.hpp"
#include "checkpoint/save_attempts.hpp"
#include "config/load.hpp"
#include "data/batch_stream.hpp"
#include "data/corpus_identity.hpp"
#include "distributed/gradient_exchange.hpp"
#include "distributed/stragglers.hpp"
#include "distributed/world.hpp"
#include "model/cost.hpp"
#include "model/transformer.hpp"
#include "reporting/metric_sink.hpp"
#include "support/error.hpp"
#include "support/stopwatch.hpp"
#include "training/adamw.hpp"
#include "training/evaluator.hpp"
#include "training/step.hpp"
#include "training/train_state.hpp"

namespace polysketch {

/// One training run in its folder, from the first step or from the newest checkpoint there: the
/// same command starts and continues. Alone, or as one of several processes that a launcher has
/// started (launch/place.hpp): then each takes its part of every step, and rank 0 writes.
///
/// A step (training/step.hpp), its update, one record. At step boundaries: evaluations, checkpoint,
/// stop. A run that was stopped at any moment and continued equals one that was not, bit for bit on
/// the CPU.
class Trainer {
 public:
  struct Options {
    /// continue although a key that changes the meaning of the run differs from the checkpoint's
    bool allow_config_change = false;
    /// continue although the training files are not those of the checkpoint
    bool allow_data_change = false;
  };

  /// Takes the run folder (lock), opens all that the run will need (both splits, tokenizer, cache,
  /// space for a checkpoint), builds the model, loads the newest checkpoint if there is one, and
  /// waits for the first batch. Whatever fails of that leaves the folder as it was, or no folder.
  /// Throws UserError: 73/74/77 folder, 65/66 data or tokenizer, 76 other processes, 78
  /// configuration, 81 checkpoint.
  Trainer(const ResolvedConfig& resolved, const Options& options);
  ~Trainer();

  /// Trains to the last step. Returns ExitCode::done, or ExitCode::stopped after a stop signal with
  /// everything saved. An error that does not come from the numbers or from another process is
  /// thrown only after the steps that were done have been saved.
  ExitCode run();

 private:
  // Set-up.
  void set_up(const ResolvedConfig& resolved, const Options& options);
  Peers peers();
  void compare_configurations();
  bool nothing_to_do(const CheckpointStore::Loaded& checkpoint, const Options& options);
  void open_inputs();
  void compare_inputs();
  void check_inputs(const CheckpointStore::Loaded& checkpoint, const Options& options);
  void hash_small_corpus();
  void size_step();
  void open_batches();
  void require_space() const;
  void build_model();
  void restore(const CheckpointStore::Loaded& checkpoint);
  void announce() const;
  std::string describe_data() const;
  void keep_folder(const ResolvedConfig& resolved);
  std::string log_path() const;
  void write_description(const std::string& config_text) const;

  // The loop.
  ExitCode train();
  bool train_step();  ///< false: a stop was asked for, the step has not happened
  void record_step(const StepResult& result, double seconds, double rate);
  void after_update(const StepResult& result);
  bool evaluate();  ///< what is due; false: interrupted by a stop
  void write_samples();
  /// saved_step_ tells whether it succeeded; throws UserError 74 when two in a row fail
  void save();
  ExitCode finish(bool stopped);
  void record(const std::string& event, nlohmann::ordered_json fields);
  /// All processes at the same point: saves, then throws the error of the one that had it. `own`:
  /// that of this process, if any.
  [[noreturn]] void end_together(const std::exception_ptr& own);
  void save_before_the_end(const char* cause);
  void save_beside();
  /// Ends the run, saved elsewhere, if its folder was removed; follows one that was renamed.
  void check_folder();
  [[noreturn]] void save_elsewhere(const std::string& before);
  void move_beside(const std::string& before);  ///< to a folder that is new
  void stay_in_folder();

  bool alone() const { return world_->size() == 1; }
  bool canonical() const { return config_.distributed.reduce == Reduce::canonical; }
  /// Sequences whose gradients are added up in one buffer before anything else: of a step of this
  /// process, or of a shard.
  int64_t sequences_per_sum() const;

  Config config_;
  std::string run_folder_;
  at::Device device_ = at::kCPU;
  std::unique_ptr<World> world_;  // outlives all that exchanges
  std::unique_ptr<RunFolder> folder_;
  std::unique_ptr<CheckpointStore> checkpoints_;
  SaveAttempts save_attempts_;
  std::unique_ptr<Corpus> corpus_;
  CorpusIdentity training_files_;
  std::set<std::string> unreadable_files_;  // names, of all processes
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientExchange> exchange_;
  std::unique_ptr<Stragglers> stragglers_;
  std::unique_ptr<TrainingStep> step_;
  std::unique_ptr<BatchStream> batches_;
  std::vector<std::unique_ptr<Evaluator>> evaluators_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
  ModelCost cost_;
  TrainState state_;
  int64_t sequences_per_step_ = 1;  ///< G
  int64_t rows_ = 1;                ///< sequences of a micro-batch
  int64_t saved_step_ = -1;
  Stopwatch since_save_, since_folder_check_;
  bool log_is_there_ = false;
  bool updating_ = false;                           // masters and moments may not belong together
  bool stop_agreed_ = false, save_agreed_ = false;  // what all processes decided with the last step
};

}  // namespace polysketch
