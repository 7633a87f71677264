// SPDX-License-Identifier: Apache-2.0
#include "config/keys.hpp"

#include "config/field_list.hpp"

#include "support/error.hpp"

namespace polysketch {
namespace {

constexpr int64_t mebi = int64_t{1} << 20;
constexpr double infinity = std::numeric_limits<double>::infinity();

void list_run(FieldList& keys, RunConfig& run) {
  keys.effect(Effect::free);
  auto& name = keys.text(
      "run.name", run.name,
      "What the run is called in logs, reports and, by default, in the name of its folder.");
  name.pattern = "[A-Za-z0-9][A-Za-z0-9._+=@-]{0,199}";
  name.form = "letters, digits and . _ + = @ -, a letter or digit first";
  auto& directory = keys.text("run.directory", run.directory,
                              "Folder of the run: configuration, metrics, log, checkpoints.");
  directory.pattern = ".+";
  directory.form = "a path";
  auto& seed =
      keys.count("run.seed", run.seed, "", 0,
                 "Seed of everything random: initial parameters, dropout, order of the data.");
  seed.effect = Effect::recipe;
}

void list_model(FieldList& keys, ModelConfig& model) {
  keys.effect(Effect::model);
  using S = ModelSize;
  keys.choice<S>(
      "model.size", model.size,
      {{"small", S::small}, {"medium", S::medium}, {"large", S::large}, {"custom", S::custom}},
      "Shape of the network; the numbers below, where given, override it. `custom` needs layers, "
      "width and heads.");
  keys.count("model.layers", model.layers, "layers", 0, "Number of blocks; 0: what the size says.")
      .most = 10'000;
  keys.count("model.width", model.width, "", 0,
             "Width of the residual stream; 0: what the size says.")
      .most = mebi;
  keys.count("model.heads", model.heads, "heads", 0,
             "Attention heads; they divide the width into even parts; 0: what the size says.")
      .most = mebi;
  keys.count(
          "model.hidden", model.hidden, "", 0,
          "Hidden width of the gated layer; 0: 8/3 of the width, rounded down to a multiple of 8.")
      .most = 4 * mebi;
  keys.count(
          "model.vocabulary", model.vocabulary, "pieces", 2,
          "Size of the vocabulary, at least the tokenizer's; rows beyond that are padding, which "
          "is never a target and never drawn.")
      .most = 16 * mebi;
  keys.choice<EmbeddingScale>(
      "model.embedding_scale", model.embedding_scale,
      {{"one", EmbeddingScale::one}, {"sqrt_width", EmbeddingScale::sqrt_width}},
      "What the embedding of a token is multiplied by before positions are added: nothing, as in "
      "the authors' code, or the square root of the width, which lets short runs learn sooner.");
  keys.real("model.dropout", model.dropout, 0, 1,
            "Probability of dropping an output of the attention and of the gated layer.")
      .high_open = true;
  auto& recompute = keys.flag(
      "model.recompute", model.recompute,
      "Keep only the inputs of the blocks for the backward pass and compute the rest again: "
      "less memory, about a third more work.");
  recompute.effect = Effect::free;
}

void list_attention(FieldList& keys, AttentionConfig& attention) {
  keys.effect(Effect::model);
  using K = AttentionKind;
  keys.choice<K>("attention.kind", attention.kind,
                 {{"softmax", K::softmax},
                  {"polynomial", K::polynomial},
                  {"polysketch", K::polysketch},
                  {"performer", K::performer},
                  {"hedgehog", K::hedgehog},
                  {"sliding_window", K::sliding_window},
                  {"local_polynomial", K::local_polynomial}},
                 "The attention mechanism (docs/attention.md).");
  auto& degree = keys.count("attention.degree", attention.degree, "", 2,
                            "Degree of polynomial, polysketch and local_polynomial attention.");
  degree.most = 64;
  degree.even = true;
  keys.choice<SketchKind>(
      "attention.sketch", attention.sketch,
      {{"learned", SketchKind::learned}, {"random", SketchKind::random}},
      "Sketch of polysketch: trained networks, or Gaussian matrices drawn once from run.seed.");
  keys.count("attention.sketch_size", attention.sketch_size, "", 1,
             "Size of a sketch, R in the paper.")
      .most = 1024;
  keys.choice<SketchScale>("attention.sketch_scale", attention.sketch_scale,
                           {{"paper", SketchScale::paper}, {"code", SketchScale::code}},
                           "Scale of random sketches: unbiased, as Algorithm 1, or divided by R, "
                           "as the authors' published code.");
  keys.choice<LocalAttention>("attention.local", attention.local,
                              {{"exact", LocalAttention::exact}, {"none", LocalAttention::none}},
                              "Weights of polysketch inside a block: of exact polynomial "
                              "attention, or sketched as everywhere.");
  keys.count("attention.block", attention.block, "tokens", 1,
             "Length of a block of polysketch and local_polynomial attention; performer and "
             "hedgehog, whose results do not depend on it, "
             "compute in blocks of 128 at most.")
      .most = 1024 * 1024;
  keys.count("attention.features", attention.features, "", 0,
             "Features of performer and hedgehog; 0: 2048 and twice the width of a head.")
      .most = 65'536;
  keys.choice<Stabiliser>("attention.stabiliser", attention.stabiliser,
                          {{"causal", Stabiliser::causal}, {"paper", Stabiliser::paper}},
                          "What performer subtracts from the exponents of keys: the largest so "
                          "far, or the largest of the whole sequence.");
  keys.count("attention.redraw", attention.redraw, "steps", 0,
             "Training steps between new random features of performer; 0: drawn once.");
  keys.count("attention.window", attention.window, "tokens", 1,
             "Positions that sliding_window attention sees, itself included.");
}

void list_data(FieldList& keys, DataConfig& data) {
  keys.effect(Effect::model);
  using C = Cleaning;
  auto& corpus =
      keys.text("data.corpus", data.corpus,
                "Name of a corpus in `data/corpora`, or the path of such a description.");
  corpus.pattern = ".+";
  corpus.form = "a name or a path";
  auto& root =
      keys.text("data.root", data.root, "Folder of the corpus, or its `s3://` or `gs://` prefix.");
  root.effect = Effect::free;
  root.per_process = true;
  keys.count("data.context", data.context, "tokens", 1, "Length of a training window.").most =
      1024 * mebi;
  keys.choice<C>(
      "data.cleaning", data.cleaning,
      {{"none", C::none}, {"plain", C::plain}, {"markers", C::markers}},
      "Wiki-40B's markup: kept as it is, turned into line breaks, or into four pieces of its own.");
  auto& path = keys.text("data.tokenizer.path", data.tokenizer.path, "SentencePiece model file.");
  path.effect = Effect::free;
  path.per_process = true;
  auto& cache = keys.text(
      "data.cache", data.cache,
      "Folder of the token cache; empty: `polysketch/tokens` in the user's cache folder.");
  cache.effect = Effect::free;
  cache.per_process = true;
  keys.flag("data.shuffle.enabled", data.shuffle.enabled,
            "Shuffle files, documents and windows; false: the order on disk.");
  keys.count("data.shuffle.files", data.shuffle.files, "files", 1,
             "How many files are read in turn.")
      .most = mebi;
  keys.count("data.shuffle.segments", data.shuffle.segments, "segments", 1,
             "How many segments have their documents and windows mixed.")
      .most = mebi;
  keys.flag("data.mask_documents", data.mask_documents,
            "Attention does not reach across the border between two documents.");
  auto& on_error = keys.choice<OnError>(
      "data.on_error", data.on_error, {{"error", OnError::error}, {"skip", OnError::skip}},
      "What a bad record does: end the run, or be skipped and counted.");
  on_error.effect = Effect::free;
  auto& max_bad_fraction =
      keys.real("data.max_bad_fraction", data.max_bad_fraction, 0, 1,
                "With `on_error: skip`: share of bad records that still ends the run.");
  max_bad_fraction.effect = Effect::free;
  auto& max_bad_in_a_row =
      keys.count("data.max_bad_in_a_row", data.max_bad_in_a_row, "records", 1,
                 "With `on_error: skip`: bad records in a row that end the run.");
  max_bad_in_a_row.effect = Effect::free;
  keys.count("data.max_document_bytes", data.max_document_bytes, "bytes", 1,
             "A longer document is a bad record.")
      .most = 1024 * mebi;
  keys.count("data.max_line_bytes", data.max_line_bytes, "bytes", 1,
             "A longer line of a text or JSON lines file is a bad record.")
      .most = 1024 * mebi;
  auto& threads = keys.count("data.threads", data.threads, "threads", 0,
                             "Threads that tokenise; 0: one less than the cores, at least one.");
  threads.most = 1024;
  threads.effect = Effect::free;
  threads.per_process = true;
}

void list_training(FieldList& keys, TrainingConfig& training) {
  keys.effect(Effect::recipe);
  using P = Precision;
  auto& batch_tokens = keys.count("training.batch_tokens", training.batch_tokens, "tokens", 1,
                                  "Tokens of an optimiser step, over all processes.");
  batch_tokens.most = 1024 * 1024 * mebi;
  batch_tokens.effect = Effect::model;
  auto& micro_batch_tokens = keys.count(
      "training.micro_batch_tokens", training.micro_batch_tokens, "tokens", 0,
      "Tokens of one forward and backward pass on one process; 0: chosen by the program.");
  micro_batch_tokens.most = 1024 * 1024 * mebi;
  micro_batch_tokens.effect = Effect::free;
  keys.count("training.steps", training.steps, "steps", 1, "Optimiser steps of the whole run.");
  keys.choice<P>(
      "training.precision", training.precision, {{"fp32", P::fp32}, {"bf16", P::bf16}},
      "Arithmetic of matrix products; master weights, norms, loss and sums stay in fp32.");
  auto& device = keys.text("training.device", training.device,
                           "Where to compute; `auto`: the first CUDA device, else the CPU.");
  device.effect = Effect::free;
  device.per_process = true;
  device.pattern = "auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?";
  device.form = "auto, cpu, cuda or cuda:N";
  auto& threads = keys.count("training.threads", training.threads, "threads", 0,
                             "Compute threads on the CPU; 0: all cores that this process may use.");
  threads.most = 4096;
  threads.effect = Effect::free;
  threads.per_process = true;
}

void list_optimizer(FieldList& keys, OptimizerConfig& optimizer) {
  keys.effect(Effect::recipe);
  keys.choice<OptimizerKind>("optimizer.kind", optimizer.kind, {{"adamw", OptimizerKind::adamw}},
                             "The optimiser.");
  keys.real("optimizer.beta1", optimizer.beta1, 0, 1, "Decay of the first moment.").high_open =
      true;
  keys.real("optimizer.beta2", optimizer.beta2, 0, 1, "Decay of the second moment.").high_open =
      true;
  keys.real("optimizer.epsilon", optimizer.epsilon, 0, 1, "Added to the root of the second moment.")
      .low_open = true;
  keys.real("optimizer.weight_decay", optimizer.weight_decay, 0, infinity,
            "Decoupled weight decay, on matrices only.");
  keys.real("optimizer.clip", optimizer.clip, 0, infinity,
            "Largest global norm of the gradient; 0: no clipping.");
}

void list_schedule(FieldList& keys, ScheduleConfig& schedule) {
  keys.effect(Effect::recipe);
  using K = ScheduleKind;
  keys.choice<K>("schedule.kind", schedule.kind,
                 {{"linear", K::linear},
                  {"cosine", K::cosine},
                  {"constant", K::constant},
                  {"warmup_stable_decay", K::warmup_stable_decay}},
                 "How the learning rate moves after the warm-up.");
  keys.real("schedule.peak", schedule.peak, 0, infinity, "Highest learning rate.");
  keys.count("schedule.warmup", schedule.warmup, "steps", 0,
             "Steps of the linear warm-up from 0 to the peak.");
  keys.real("schedule.final_fraction", schedule.final_fraction, 0, 1,
            "Learning rate at the last step, as a share of the peak.");
  keys.real("schedule.decay_fraction", schedule.decay_fraction, 0, 1,
            "`warmup_stable_decay`: share of all steps that the decay takes.");
}

void list_evaluation(FieldList& keys, EvaluationConfig& evaluation) {
  keys.effect(Effect::free);
  using S = Split;
  keys.count("evaluation.every", evaluation.every, "steps", 0,
             "Steps between two validations; 0: never.");
  keys.choice<S>("evaluation.split", evaluation.split,
                 {{"train", S::train}, {"validation", S::validation}, {"test", S::test}},
                 "The split that is scored.");
  keys.count("evaluation.tokens", evaluation.tokens, "tokens", 0,
             "Tokens scored each time; `all` (0): the whole split.")
      .words = {{"all", 0}};
  keys.count("evaluation.samples", evaluation.samples, "samples", 0,
             "Texts of 128 tokens that the model writes after each validation, into the run's "
             "`samples.txt`; 0: none.")
      .most = 1000;
}

void list_checkpoint(FieldList& keys, CheckpointConfig& checkpoint) {
  keys.effect(Effect::free);
  keys.count("checkpoint.every", checkpoint.every, "steps", 0,
             "Steps between two checkpoints; 0: only at the end and on a stop.");
  keys.count("checkpoint.minutes", checkpoint.minutes, "minutes", 0,
             "Also save when so many minutes have gone by since the last checkpoint, by the clock "
             "of rank 0; 0: no.")
      .most = 100'000;
  keys.count("checkpoint.keep_last", checkpoint.keep_last, "checkpoints", 1,
             "How many of the newest checkpoints stay.");
  keys.count("checkpoint.keep_every", checkpoint.keep_every, "steps", 0,
             "Checkpoints at multiples of this step stay for good; 0: none do.");
  keys.flag("checkpoint.keep_best", checkpoint.keep_best,
            "The checkpoint of the step with the lowest validation loss so far stays too, if one "
            "was saved at that step.");
}

void list_logging(FieldList& keys, LoggingConfig& logging) {
  keys.effect(Effect::free, /*per_process=*/true);
  keys.count("logging.every", logging.every, "steps", 1,
             "Steps between two lines on the console; `metrics.jsonl` has every step.");
  keys.count("logging.diagnostics", logging.diagnostics, "steps", 0,
             "Steps between two looks at the attention weights of a few queries "
             "(docs/attention.md); 0: never.");
  keys.flag("logging.tensorboard", logging.tensorboard, "Write TensorBoard event files.");
  keys.flag("logging.progress", logging.progress,
            "Show a progress bar where standard error is a terminal.");
}

void list_distributed(FieldList& keys, DistributedConfig& distributed) {
  keys.effect(Effect::free);
  using R = Reduce;
  using T = ReduceType;
  auto& address =
      keys.text("distributed.address", distributed.address,
                "Address of this machine's network interface on which the processes meet and talk; "
                "empty: chosen by the host's name.");
  address.per_process = true;
  keys.count("distributed.timeout", distributed.timeout, "seconds", 1,
             "Longest time of an exchange until the first step is done.")
      .most = 86'400;
  keys.count("distributed.step_timeout", distributed.step_timeout, "seconds", 1,
             "Longest time of an exchange from then on.")
      .most = 86'400;
  auto& reduce = keys.choice<R>(
      "distributed.reduce", distributed.reduce, {{"fast", R::fast}, {"canonical", R::canonical}},
      "How gradients are added up: `fast` while backward runs, or `canonical`: in an "
      "order that does not depend on the number of "
      "processes, so that training is equal bit for bit for every number that divides "
      "`distributed.shards`.");
  reduce.effect = Effect::recipe;
  auto& shards =
      keys.count("distributed.shards", distributed.shards, "shards", 1,
                 "Parts of a step that canonical reduction adds up one after the other.");
  shards.most = 65'536;
  shards.effect = Effect::recipe;
  auto& reduce_type = keys.choice<T>("distributed.reduce_type", distributed.reduce_type,
                                     {{"fp32", T::fp32}, {"bf16", T::bf16}},
                                     "In which type gradients travel between processes.");
  reduce_type.effect = Effect::recipe;
  keys.count("distributed.bucket_bytes", distributed.bucket_bytes, "bytes", 1024,
             "Gradients that travel together, as fp32.")
      .most = 1024 * mebi;
  keys.flag("distributed.shard_optimizer", distributed.shard_optimizer,
            "Each process keeps its share of the moments (and, in bf16, of the masters) instead of "
            "all: ZeRO-1.");
  keys.count(
      "distributed.check_replicas", distributed.check_replicas, "steps", 0,
      "Steps between comparisons of the parameters of all processes, bit for bit; 0: never.");
  keys.real("distributed.straggler", distributed.straggler, 0, infinity,
            "A process whose steps take this many times as long as the median's is named in the "
            "log; 0: none is.");
  keys.flag("distributed.bind_cpus", distributed.bind_cpus,
            "Keep each process on its own share of the machine's processors.");
}

}  // namespace

const char* effect_name(Effect effect) {
  return effect == Effect::free ? "free" : effect == Effect::recipe ? "asks" : "fixed";
}

std::vector<Field> list_fields(Config& config) {
  FieldList keys;
  list_run(keys, config.run);
  list_model(keys, config.model);
  list_attention(keys, config.attention);
  list_data(keys, config.data);
  list_training(keys, config.training);
  list_optimizer(keys, config.optimizer);
  list_schedule(keys, config.schedule);
  list_evaluation(keys, config.evaluation);
  list_checkpoint(keys, config.checkpoint);
  list_logging(keys, config.logging);
  list_distributed(keys, config.distributed);
  return keys.take();
}

std::string section_meaning(std::string_view path) {
  if (path == "run") return "What the run is called and where it lives.";
  if (path == "model") return "Shape of the network.";
  if (path == "attention") return "The attention mechanism of every layer.";
  if (path == "data") return "What is read and how it becomes windows of tokens.";
  if (path == "data.tokenizer") return "How text becomes ids.";
  if (path == "data.shuffle")
    return "How the order of the data is mixed; the order is a pure function of seed, epoch and "
           "position.";
  if (path == "training") return "How much is computed, and on what.";
  if (path == "optimizer") return "How gradients become updates.";
  if (path == "schedule") return "How the learning rate moves.";
  if (path == "evaluation") return "Scoring while training.";
  if (path == "checkpoint") return "What is saved and kept.";
  if (path == "logging") return "What is shown and recorded.";
  if (path == "distributed")
    return "How several processes train one model; one process needs nothing of it "
           "(docs/distributed.md).";
  throw InternalError("a configuration section has no description");
}

std::string value_text(const Config& config, std::string_view path) {
  Config copy = config;
  for (const auto& field : list_fields(copy)) {
    if (field.path == path) return field.text();
  }
  throw InternalError("value_text: no such configuration key");
}

}  // namespace polysketch
