// SPDX-License-Identifier: Apache-2.0
// How a run begins and what it keeps: folder, model, checkpoint.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "model/device.hpp"
#include "model/memory.hpp"
#include "model/model_file.hpp"
#include "support/build_info.hpp"
#include "support/durable_file.hpp"
#include "support/log.hpp"
#include "support/units.hpp"
#include "training/trainer.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json pairs_to_json(const std::vector<std::pair<std::string, std::string>>& pairs) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : pairs) json[name] = value;
  return json;
}

// Keys that may differ between a checkpoint and the command that continues it, since they change neither the model nor the sequence of
// tokens nor an update.
bool may_change(const std::string& difference) {
  static constexpr std::array free_sections{
      "run.name",       "run.directory", "evaluation.",         "checkpoint.",     "logging.",         "data.root",
      "data.cache",     "data.threads",  "data.tokenizer.path", "training.device", "training.threads", "training.micro_batch_tokens",
      "model.recompute"};
  return std::any_of(free_sections.begin(), free_sections.end(), [&](const char* start) { return difference.starts_with(start); });
}

}  // namespace

Trainer::~Trainer() = default;

Trainer::Trainer(const ResolvedConfig& resolved, const Options& options) : config_(resolved.config), run_folder_(config_.run.directory) {
  prepare_folder(resolved);
  const int64_t context = config_.data.context;
  corpus_ = std::make_unique<Corpus>(Corpus::open(config_.data));
  tokenizer_ = std::make_unique<Tokenizer>(config_.data.tokenizer.path);
  tokenizer_->require_fits(config_.model.vocabulary, config_.data.cleaning);
  sequences_per_step_ = config_.training.batch_tokens / context;
  checkpoints_ = std::make_unique<CheckpointStore>(run_folder_, config_.checkpoint);

  // The position comes from the checkpoint's manifest, so that data is being prepared while tensors are made.
  const auto found = checkpoints_->newest_valid();
  if (found) {
    check_unchanged(*found, options);
    state_ = TrainState::from_json(found->manifest.state.at("train"));
  }
  device_ = open_device(config_.training.device, config_.training.threads);
  rows_ = micro_batch_rows(config_.training, context, sequences_per_step_, device_.is_cuda());
  require_training_memory(config_, rows_, available_memory_bytes(device_));
  BatchStream::Options order;
  order.sequences_per_step = sequences_per_step_;
  order.rows_per_batch = rows_;
  order.start_sequence = state_.sequences;
  order.seed = static_cast<uint64_t>(config_.run.seed);
  if (state_.step < config_.training.steps) batches_ = std::make_unique<BatchStream>(config_.data, *corpus_, *tokenizer_, order);
  build_model();
  if (found) restore(*found);

  sinks_.push_back(make_jsonl_sink(run_folder_ + "/metrics.jsonl", state_.step));
  if (config_.logging.tensorboard) sinks_.push_back(make_tensorboard_sink(run_folder_ + "/tensorboard"));
  sinks_.push_back(make_console_sink({.total_steps = config_.training.steps,
                                      .start_step = state_.step,
                                      .every = config_.logging.every,
                                      .progress = config_.logging.progress}));
  announce();
}

void Trainer::prepare_folder(const ResolvedConfig& resolved) {
  create_directories(run_folder_);
  lock_ = std::make_unique<RunLock>(run_folder_);
  attach_log_file(run_folder_ + "/log.txt");
  write_file_durably(run_folder_ + "/config.yaml", to_yaml(resolved));
  const nlohmann::ordered_json about{{"build", pairs_to_json(build_info())}, {"machine", pairs_to_json(machine_info())}};
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
  model_ = std::make_unique<Transformer>(options);
  optimizer_ = std::make_unique<AdamW>(model_->parameters(), config_.optimizer);
  cost_ = model_cost(config_.model, config_.attention, config_.training.precision, config_.data.context, rows_ * config_.data.context);
}

void Trainer::check_unchanged(const CheckpointStore::Loaded& checkpoint, const Options& options) const {
  const nlohmann::json& saved = checkpoint.manifest.state;
  const std::string tokenizer = saved.at("tokenizer_sha256").get<std::string>();
  if (tokenizer != tokenizer_->sha256()) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: the run was started with another tokenizer (SHA-256 {}, now {}): give data.tokenizer.path "
                                "the old one, or choose another run.directory",
                                config_.data.tokenizer.path, tokenizer, tokenizer_->sha256()));
  }
  std::vector<std::string> changed = config_difference(config_from_json(saved.at("config")), config_);
  std::erase_if(changed, may_change);
  if (changed.empty()) return;
  const std::string text = fmt::format("{}", fmt::join(changed, "\n  "));
  const bool model = std::any_of(changed.begin(), changed.end(), [](const std::string& key) {
    return key.starts_with("model.") || key.starts_with("attention.") || key.starts_with("data.") ||
           key.starts_with("training.batch_tokens");
  });
  if (!options.allow_config_change || model) {
    throw UserError(ExitCode::config,
                    fmt::format("{}: the checkpoint was made under another configuration (checkpoint -> now):\n  {}\n{}",
                                checkpoint.directory.string(), text,
                                model ? "choose another run.directory, or put the keys back"
                                      : "put the keys back, choose another run.directory, or continue with --allow-config-change"));
  }
  log_warning(fmt::format("continuing under a changed configuration (checkpoint -> now):\n  {}", text));
}

void Trainer::restore(const CheckpointStore::Loaded& checkpoint) {
  Parameters& parameters = model_->parameters();
  const auto load = [&](const char* name, const std::vector<std::pair<std::string, at::Tensor>>& targets) {
    const fs::path path = checkpoint.directory / name;
    const TensorFile file(path);
    for (const auto& [prefix, flat] : targets) load_tensors(parameters, flat, file, prefix, path.string());
  };
  load("model.safetensors", {{"", parameters.flat_master()}});
  load("optimizer.safetensors", {{"first_moment.", optimizer_->first_moment()}, {"second_moment.", optimizer_->second_moment()}});
  parameters.refresh_compute();
  model_->at_step(std::max<int64_t>(0, state_.step - 1));
  saved_step_ = state_.step;
  log_info(fmt::format("continuing from {} at step {}, {} tokens, digest {}", checkpoint.directory.string(), state_.step,
                       format_count(state_.tokens), digest_text(state_.digest)));
}

void Trainer::save() {
  const auto start = std::chrono::steady_clock::now();
  const Parameters& parameters = model_->parameters();
  CheckpointStore::Save save(*checkpoints_, state_.step);
  std::vector<FileRecord> files;
  at::Tensor masters, first, second;
  files.push_back(write_safetensors(save.directory() / "model.safetensors",
                                    tensor_views(parameters, model_->parameters().flat_master(), "", masters), {{"format", "pt"}}));
  std::vector<TensorView> moments = tensor_views(parameters, optimizer_->first_moment(), "first_moment.", first);
  for (TensorView& view : tensor_views(parameters, optimizer_->second_moment(), "second_moment.", second))
    moments.push_back(std::move(view));
  files.push_back(write_safetensors(save.directory() / "optimizer.safetensors", moments));
  int64_t bytes = 0;
  for (const FileRecord& file : files) bytes += static_cast<int64_t>(file.bytes);
  save.commit(std::move(files), {{"train", state_.to_json()},
                                 {"config", to_json(config_)},
                                 {"tokenizer_sha256", tokenizer_->sha256()},
                                 {"device", device_name(device_)},
                                 {"build", pairs_to_json(build_info())},
                                 {"machine", pairs_to_json(machine_info())}});
  saved_step_ = state_.step;
  record("checkpoint", {{"path", checkpoints_->path_of(state_.step).string()},
                        {"bytes", bytes},
                        {"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}});
}

void Trainer::announce() const {
  const auto& m = config_.model;
  log_info(fmt::format("model: {} parameters ({} without embedding), {} layers x {} wide, {} heads of {}, vocabulary {}",
                       format_count(cost_.parameters), format_count(cost_.parameters - cost_.embedding_parameters), m.layers, m.width,
                       m.heads, m.width / m.heads, m.vocabulary));
  log_info(fmt::format("step: {} tokens = {} sequences of {}, in micro-batches of {}; {} steps, {} tokens in all; {:.4g} GFLOP a token",
                       format_count(config_.training.batch_tokens), sequences_per_step_, config_.data.context, rows_,
                       config_.training.steps, format_count(config_.training.steps * config_.training.batch_tokens),
                       cost_.flops_per_token / 1e9));
  log_info(fmt::format("device: {}, {}", device_name(device_), config_.training.precision == Precision::bf16 ? "bf16" : "fp32"));
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
