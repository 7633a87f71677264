// SPDX-License-Identifier: Apache-2.0
// How a run begins and what it keeps: folder, model, checkpoint.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "config/keys.hpp"
#include "config/rules.hpp"
#include "distributed/gather_flat.hpp"
#include "launch/processors.hpp"
#include "model/device.hpp"
#include "model/memory.hpp"
#include "model/model_file.hpp"
#include "support/build_info.hpp"
#include "support/durable_file.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/units.hpp"
#include "training/trainer.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json pairs_to_json(
    const std::vector<std::pair<std::string, std::string>>& pairs) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : pairs) json[name] = value;
  return json;
}

// Keys that may differ between a checkpoint and the command that continues it, since they change
// neither the model nor the sequence of tokens nor an update.
bool may_change(const std::string& difference) {
  static constexpr std::array free_sections{
      "run.name", "run.directory", "evaluation.", "checkpoint.", "logging.", "data.root",
      "data.cache", "data.threads", "data.tokenizer.path", "training.device", "training.threads",
      "training.micro_batch_tokens", "model.recompute",
      // How several processes work together, but not in which order and type they add up.
      "distributed.address", "distributed.timeout", "distributed.step_timeout",
      "distributed.bucket_bytes", "distributed.shard_optimizer", "distributed.check_replicas",
      "distributed.straggler", "distributed.bind_cpus"};
  return std::any_of(free_sections.begin(), free_sections.end(),
                     [&](const char* start) { return difference.starts_with(start); });
}

// Keys that may differ between the processes of a run: each machine has its own paths and devices.
bool may_differ_between_processes(const std::string& key) {
  static constexpr std::array own{"data.root",           "data.cache",      "data.threads",
                                  "data.tokenizer.path", "training.device", "training.threads",
                                  "distributed.address", "logging."};
  return std::any_of(own.begin(), own.end(),
                     [&](const char* start) { return key.starts_with(start); });
}

// Names and sizes of the files of the training split: what a process must not have otherwise than
// the others. Not their content, which may take hours to read; the digest of the tokens of every
// step goes into the checkpoint.
std::string data_fingerprint(const Corpus& corpus) {
  Sha256 hash;
  for (const CorpusFile& file : corpus.files(Split::train)) {
    const std::string line = fmt::format("{}\n{}\n", file.name, file.bytes);
    hash.update(line.data(), line.size());
  }
  return hash.hex();
}

}  // namespace

Trainer::~Trainer() = default;

Trainer::Trainer(const ResolvedConfig& resolved, const Options& options)
    : config_(resolved.config), run_folder_(config_.run.directory) {
  // The world comes before everything else, so that an error of one process is told to all.
  world_ = join_launched_world(
      config_.distributed, config_.training.device, config_.training.threads,
      [this](const Place& place) { require_valid_world(config_, place.world); });
  device_ = world_->device();
  try {
    set_up(resolved, options);
  } catch (const UserError& error) {
    world_->announce_end(error.code(), error.what());
    throw;
  }
}

Peers Trainer::peers() {
  Peers all;
  all.rank = world_->rank();
  all.world = world_->size();
  all.all_gather = [this](const std::string& text) {
    return world_->collectives().all_gather_text(text, "checkpoint");
  };
  return all;
}

void Trainer::compare_processes() {
  if (alone()) return;
  std::vector<std::pair<std::string, std::string>> facts{
      {"the program", sha256_file("/proc/self/exe")},
      {"the tokenizer", tokenizer_->sha256()},
      {"the list of training files", data_fingerprint(*corpus_)}};
  Config copy = config_;
  for (const Field& field : list_fields(copy)) {
    if (!may_differ_between_processes(field.path)) facts.emplace_back(field.path, field.text());
  }
  world_->require_alike(facts);
}

void Trainer::set_up(const ResolvedConfig& resolved, const Options& options) {
  prepare_folder(resolved);
  const int64_t context = config_.data.context;
  corpus_ = std::make_unique<Corpus>(Corpus::open(config_.data));
  tokenizer_ = std::make_unique<Tokenizer>(config_.data.tokenizer.path);
  tokenizer_->require_fits(config_.model.vocabulary, config_.data.cleaning);
  if (const auto unused = unused_rows(config_.model, tokenizer_->vocabulary());
      unused && world_->leads())
    log_warning(*unused);
  compare_processes();
  sequences_per_step_ = config_.training.batch_tokens / context;
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint, peers());
  save_attempts_ = SaveAttempts(world_->leads());

  // The position comes from the checkpoint's manifest, so that data is being prepared while tensors
  // are made.
  const auto found = checkpoints_->newest_valid();
  if (found) {
    check_unchanged(*found, options);
    state_ = TrainState::from_json(found->manifest.state.at("train"));
  }
  rows_ = micro_batch_rows(config_.training, context, sequences_per_sum(), device_.is_cuda());
  if (sequences_per_sum() % rows_ != 0) {
    throw UserError(ExitCode::config,
                    fmt::format("training.micro_batch_tokens: {} sequences do not divide the {} "
                                "that {} has: use 0, or a divisor",
                                rows_, sequences_per_sum(), canonical() ? "a shard" : "a process"));
  }
  require_training_memory(config_, rows_, world_->available_memory(),
                          config_.distributed.shard_optimizer ? world_->size() : 1);
  BatchStream::Options order;
  order.rank = world_->rank();
  order.world = world_->size();
  order.sequences_per_step = sequences_per_step_;
  order.rows_per_batch = rows_;
  order.start_sequence = state_.sequences;
  order.seed = static_cast<uint64_t>(config_.run.seed);
  DataConfig data = config_.data;
  if (data.threads == 0 && world_->place().local_world > 1)
    data.threads = threads_each(usable_processors(), world_->place().local_world);
  if (state_.step < config_.training.steps)
    batches_ = std::make_unique<BatchStream>(data, *corpus_, *tokenizer_, order);
  build_model();
  if (found) restore(*found);
  if (!world_->leads()) return;
  sinks_.push_back(make_jsonl_sink(run_folder_ + "/metrics.jsonl", state_.step));
  if (config_.logging.tensorboard)
    sinks_.push_back(make_tensorboard_sink(run_folder_ + "/tensorboard"));
  sinks_.push_back(make_console_sink({.total_steps = config_.training.steps,
                                      .start_step = state_.step,
                                      .every = config_.logging.every,
                                      .progress = config_.logging.progress}));
  announce();
}

void Trainer::prepare_folder(const ResolvedConfig& resolved) {
  create_directories(run_folder_);
  world_->dump_into(run_folder_);
  lock_ = std::make_unique<RunLock>(run_folder_, peers());
  attach_log_file(run_folder_ +
                  (world_->leads() ? "/log.txt" : fmt::format("/log-rank{}.txt", world_->rank())));
  if (!world_->leads()) return;
  write_file_durably(run_folder_ + "/config.yaml", to_yaml(resolved));
  const nlohmann::ordered_json about{{"build", pairs_to_json(build_info())},
                                     {"machine", pairs_to_json(machine_info())}};
  write_file_durably(run_folder_ + "/run.json", about.dump(2) + "\n");
}

void Trainer::build_model() {
  Transformer::Options options;
  options.model = config_.model;
  options.attention = config_.attention;
  options.device = device_;
  options.compute = config_.training.precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
  options.seed = static_cast<uint64_t>(config_.run.seed);
  options.initialize = state_.step == 0;
  const DistributedConfig& distributed = config_.distributed;
  options.sharding = {
      .rank = world_->rank(),
      .world = world_->size(),
      .bucket_elements = distributed.bucket_bytes / static_cast<int64_t>(sizeof(float)),
      .masters = distributed.shard_optimizer};
  model_ = std::make_unique<Transformer>(options);
  Parameters& parameters = model_->parameters();
  Collectives& collectives = world_->collectives();
  optimizer_ = std::make_unique<AdamW>(parameters, config_.optimizer,
                                       distributed.shard_optimizer ? &collectives : nullptr);
  if (canonical()) {
    reduction_ = std::make_unique<CanonicalReduction>(parameters, collectives, distributed.shards);
  } else if (!alone()) {
    reducer_ = std::make_unique<GradientReducer>(parameters, collectives, distributed.reduce_type,
                                                 distributed.shard_optimizer);
  }
  if (!alone() && distributed.straggler > 0)
    stragglers_ = std::make_unique<Stragglers>(*world_, distributed.straggler);
  cost_ = model_cost(config_.model, config_.attention, config_.training.precision,
                     config_.data.context, rows_ * config_.data.context);
}

void Trainer::check_unchanged(const CheckpointStore::Loaded& checkpoint,
                              const Options& options) const {
  const nlohmann::json& saved = checkpoint.manifest.state;
  const std::string tokenizer = saved.at("tokenizer_sha256").get<std::string>();
  if (tokenizer != tokenizer_->sha256()) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: the run was started with another tokenizer (SHA-256 {}, now "
                                "{}): give data.tokenizer.path "
                                "the old one, or choose another run.directory",
                                config_.data.tokenizer.path, tokenizer, tokenizer_->sha256()));
  }
  std::vector<std::string> changed =
      config_difference(config_from_json(saved.at("config")), config_);
  std::erase_if(changed, may_change);
  if (changed.empty()) return;
  const std::string text = fmt::format("{}", fmt::join(changed, "\n  "));
  const bool model = std::any_of(changed.begin(), changed.end(), [](const std::string& key) {
    return key.starts_with("model.") || key.starts_with("attention.") || key.starts_with("data.") ||
           key.starts_with("training.batch_tokens");
  });
  if (!options.allow_config_change || model) {
    throw UserError(ExitCode::config,
                    fmt::format("{}: the checkpoint was made under another configuration "
                                "(checkpoint -> now):\n  {}\n{}",
                                checkpoint.directory.string(), text,
                                model ? "choose another run.directory, or put the keys back"
                                      : "put the keys back, choose another run.directory, or "
                                        "continue with --allow-config-change"));
  }
  log_warning(
      fmt::format("continuing under a changed configuration (checkpoint -> now):\n  {}", text));
}

void Trainer::restore(const CheckpointStore::Loaded& checkpoint) {
  Parameters& parameters = model_->parameters();
  const auto& files = checkpoint.manifest.files;
  const TensorSet model(checkpoint.directory, files, "model"),
      optimizer(checkpoint.directory, files, "optimizer");
  load_tensors(parameters, model, "",
               [&](size_t index, const at::Tensor& value) { parameters.assign(index, value); });
  load_tensors(parameters, optimizer, "first_moment.", [&](size_t index, const at::Tensor& value) {
    optimizer_->assign(optimizer_->first_moment(), index, value);
  });
  load_tensors(parameters, optimizer, "second_moment.", [&](size_t index, const at::Tensor& value) {
    optimizer_->assign(optimizer_->second_moment(), index, value);
  });
  model_->at_step(std::max<int64_t>(0, state_.step - 1));
  saved_step_ = state_.step;
  if (!world_->leads()) return;
  if (const int64_t before = checkpoint.manifest.state.value("processes", int64_t{1});
      before != world_->size()) {
    log_info(fmt::format(
        "the checkpoint was made by {} processes, now there are {}: the same tokens go on{}",
        before, world_->size(),
        canonical() ? ", and the same sums" : "; sums are rounded otherwise in their last bits"));
  }
  log_info(fmt::format("continuing from {} at step {}, {} tokens, digest {}",
                       checkpoint.directory.string(), state_.step, format_count(state_.tokens),
                       digest_text(state_.digest)));
}

// Masters and moments, as far as this process writes them; what others keep of that is fetched.
std::vector<TensorGroup> Trainer::state_tensors(std::vector<at::Tensor>& storage) {
  Parameters& parameters = model_->parameters();
  const Peers& peers = checkpoints_->peers();
  at::Tensor masters, first = optimizer_->first_moment(), second = optimizer_->second_moment();
  const auto gather = [&](const auto& own_part, size_t buffers, size_t buffer, const char* what) {
    const auto ranges =
        written_elements(parameters, parameters.master_type(), buffers, peers.rank, peers.world);
    return gather_flat(world_->collectives(), parameters, own_part, ranges[buffer], what);
  };
  if (parameters.masters_sharded()) {
    masters = gather([&](size_t i) { return parameters.owned_master(i); }, 1, 0, "masters");
  } else {
    masters = parameters.flat_master();
  }
  if (optimizer_->sharded()) {
    first = gather([&](size_t i) { return optimizer_->owned_part(optimizer_->first_moment(), i); },
                   2, 0, "first moments");
    second =
        gather([&](size_t i) { return optimizer_->owned_part(optimizer_->second_moment(), i); }, 2,
               1, "second moments");
  }
  return {tensor_group("model", parameters, {{"", masters}}, peers, storage),
          tensor_group("optimizer", parameters,
                       {{"first_moment.", first}, {"second_moment.", second}}, peers, storage)};
}

void Trainer::save() {
  const auto start = std::chrono::steady_clock::now();
  world_->be_patient(true);
  std::vector<at::Tensor> storage;
  const std::vector<TensorGroup> groups = state_tensors(storage);
  const nlohmann::json state{{"train", state_.to_json()},
                             {"processes", world_->size()},
                             {"config", to_json(config_)},
                             {"tokenizer_sha256", tokenizer_->sha256()},
                             {"device", device_name(device_)},
                             {"build", pairs_to_json(build_info())},
                             {"machine", pairs_to_json(machine_info())}};
  uint64_t bytes = 0;
  const bool saved = save_attempts_.attempt(
      state_.step, [&] { bytes = checkpoints_->save(state_.step, groups, state); });
  world_->be_patient(false);
  if (!saved) return;
  saved_at_ = start;
  saved_step_ = state_.step;
  record("checkpoint",
         {{"path", checkpoints_->path_of(state_.step).string()},
          {"bytes", bytes},
          {"seconds",
           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}});
}

void Trainer::announce() const {
  const auto& m = config_.model;
  log_info(fmt::format(
      "model: {} parameters ({} without embedding), {} layers x {} wide, {} heads of {}, "
      "vocabulary {}",
      format_count(cost_.parameters), format_count(cost_.parameters - cost_.embedding_parameters),
      m.layers, m.width, m.heads, m.width / m.heads, m.vocabulary));
  log_info(fmt::format(
      "step: {} tokens = {} sequences of {}, in micro-batches of {}; {} steps, {} tokens in all; "
      "{:.4g} GFLOP a token",
      format_count(config_.training.batch_tokens), sequences_per_step_, config_.data.context, rows_,
      config_.training.steps, format_count(config_.training.steps * config_.training.batch_tokens),
      cost_.flops_per_token / 1e9));
  log_info(fmt::format("device: {}, {}", device_name(device_),
                       config_.training.precision == Precision::bf16 ? "bf16" : "fp32"));
  if (world_->place().source != "none") {
    log_info(fmt::format(
        "processes: {} on {} machines (found by {}), over {}; {} buckets of gradients{}{}",
        world_->size(),
        std::set<std::string>(world_->hosts().begin(), world_->hosts().end()).size(),
        world_->place().source, world_->collectives().transport(),
        model_->parameters().buckets().size(), canonical() ? ", canonical order" : "",
        optimizer_->sharded() ? ", optimiser sharded" : ""));
  }
  for (const auto& sink : sinks_) {
    sink->record({"start",
                  state_.step,
                  state_.tokens,
                  {{"parameters", cost_.parameters},
                   {"flops_per_token", cost_.flops_per_token},
                   {"device", device_name(device_)},
                   {"commit", build_info().at(1).second}}});
  }
}

}  // namespace polysketch
