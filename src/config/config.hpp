// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace polysketch {

// Every key a user can set. Range, unit and the sentence for `--help`, schema and docs stand in
// config/keys.hpp, once.

struct RunConfig {
  std::string name = "run";
  std::string directory = "runs/${run.name}";
  int64_t seed = 1;
};

enum class ModelSize { small, medium, large, custom };
enum class EmbeddingScale { one, sqrt_width };

struct ModelConfig {
  ModelSize size = ModelSize::small;
  int64_t layers = 0;  ///< L; 0: what the size says
  int64_t width = 0;   ///< C
  int64_t heads = 0;   ///< H; D = C / H
  int64_t hidden = 0;  ///< G; 0: floor(floor(8C/3)/8)*8
  int64_t vocabulary = 32'000;
  EmbeddingScale embedding_scale = EmbeddingScale::one;
  double dropout = 0;      ///< after W_o and after the GLU
  bool recompute = false;  ///< keep only block inputs for backward
};

enum class AttentionKind {
  softmax,
  polynomial,
  polysketch,
  performer,
  hedgehog,
  sliding_window,
  local_polynomial
};
enum class SketchKind { learned, random };
enum class LocalAttention { exact, none };
enum class SketchScale { paper, code };
enum class Stabiliser { causal, paper };

struct AttentionConfig {
  AttentionKind kind = AttentionKind::softmax;
  int64_t degree = 4;  ///< p of the polynomial, even; a power of two for polysketch
  SketchKind sketch = SketchKind::learned;        ///< of polysketch
  int64_t sketch_size = 32;                       ///< R
  SketchScale sketch_scale = SketchScale::paper;  ///< of random sketches
  LocalAttention local = LocalAttention::exact;   ///< inside the blocks of polysketch
  int64_t block =
      1024;  ///< b: rows of a block of polysketch, performer, hedgehog and local_polynomial
  int64_t features = 0;                        ///< F of performer and hedgehog; 0: 2048 and 2·D
  Stabiliser stabiliser = Stabiliser::causal;  ///< of performer
  int64_t redraw = 0;     ///< steps between new features of performer; 0: never
  int64_t window = 1024;  ///< positions that sliding_window sees, itself included
};

/// Wiki-40B: markup as it is; markup to newlines; markup to four special pieces
enum class Cleaning { none, plain, markers };
enum class OnError { error, skip };

struct TokenizerConfig {
  std::string path;  ///< SentencePiece .model
};

struct ShuffleConfig {
  bool enabled = true;
  int64_t files = 16;     ///< files read in turn
  int64_t segments = 64;  ///< segments whose documents and windows are mixed
};

struct DataConfig {
  std::string corpus = "text";  ///< name of data/corpora/<name>.yaml, or a path to such a file
  std::string root;             ///< folder or s3://, gs:// prefix of the corpus
  int64_t context = 1024;       ///< T
  Cleaning cleaning = Cleaning::none;
  TokenizerConfig tokenizer;
  std::string cache;  ///< token cache; empty: ${XDG_CACHE_HOME}/polysketch/tokens
  ShuffleConfig shuffle;
  bool mask_documents = false;  ///< attention does not cross a document boundary
  OnError on_error = OnError::error;
  double max_bad_fraction = 0.001;
  int64_t max_bad_in_a_row = 100;
  int64_t max_document_bytes = 16 << 20;
  int64_t max_line_bytes = 64 << 20;
  int64_t threads = 0;  ///< tokeniser threads; 0: one less than the cores, at least one
};

enum class Precision { fp32, bf16 };

struct TrainingConfig {
  int64_t batch_tokens = 1 << 20;  ///< tokens of an optimiser step, over all processes
  int64_t micro_batch_tokens = 0;  ///< tokens of one forward and backward on one process; 0: chosen
  int64_t steps = 125'000;
  Precision precision = Precision::bf16;
  std::string device = "auto";  ///< auto | cpu | cuda | cuda:N
  int64_t threads = 0;          ///< compute threads on the CPU; 0: all it may use
};

enum class OptimizerKind { adamw };

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::adamw;
  double beta1 = 0.95;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  ///< on matrices only
  double clip = 1.0;          ///< global norm; 0: off
};

enum class ScheduleKind { linear, cosine, constant, warmup_stable_decay };

/// How the learning rate moves. Steps count optimiser updates.
struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::linear;
  double peak = 7e-4;
  int64_t warmup = 10'000;
  double final_fraction = 0;    ///< rate at the last step as a share of the peak
  double decay_fraction = 0.1;  ///< warmup_stable_decay: share of all steps that the decay takes
};

enum class Split { train, validation, test };

struct EvaluationConfig {
  int64_t every = 2500;  ///< steps; 0: never
  Split split = Split::validation;
  int64_t tokens = 0;   ///< tokens scored; 0 (`all`): the whole split
  int64_t samples = 0;  ///< texts written after each validation
};

struct CheckpointConfig {
  int64_t every = 1000;  ///< steps; 0: only at the end and on a stop
  int64_t minutes = 0;   ///< also after so many minutes since the last; 0: no
  int64_t keep_last = 3;
  int64_t keep_every = 0;  ///< also keep every checkpoint at a multiple of this step; 0: none
  bool keep_best = true;   ///< also keep the one of the lowest validation loss so far
};

struct LoggingConfig {
  int64_t every = 10;       ///< steps between console lines (every step stands in metrics.jsonl)
  int64_t diagnostics = 0;  ///< steps between two looks at the attention weights; 0: never
  bool tensorboard = true;
  bool progress = true;  ///< progress bar when standard error is a terminal
};

enum class Reduce { fast, canonical };
enum class ReduceType { fp32, bf16 };

/// How several processes train one model. One process alone needs nothing of it but `reduce`.
struct DistributedConfig {
  std::string address;    ///< of this machine, where the store listens and processes are reached;
                          ///< empty: chosen
  int64_t timeout = 600;  ///< seconds a collective may take until the first step is done
  int64_t step_timeout = 300;    ///< seconds from then on
  Reduce reduce = Reduce::fast;  ///< canonical: sums in an order that does not depend on the number
                                 ///< of processes
  int64_t shards = 8;  ///< M, parts of a step whose gradients canonical reduction adds up in order
  ReduceType reduce_type = ReduceType::fp32;  ///< in which gradients travel
  int64_t bucket_bytes = 25 << 20;            ///< of gradients that travel together
  bool shard_optimizer = false;  ///< ZeRO-1: each process keeps 1/W of the moments and masters
  int64_t check_replicas =
      100;  ///< steps between comparisons of the parameters of all processes; 0: never
  double straggler =
      1.5;  ///< a process that computes this many times longer than the median is named; 0: none
  bool bind_cpus = false;  ///< each process stays on its own share of the machine's processors
};

struct Config {
  RunConfig run;
  ModelConfig model;
  AttentionConfig attention;
  DataConfig data;
  TrainingConfig training;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  EvaluationConfig evaluation;
  CheckpointConfig checkpoint;
  LoggingConfig logging;
  DistributedConfig distributed;
};

}  // namespace polysketch
