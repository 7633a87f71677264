// SPDX-License-Identifier: Apache-2.0
#include "commands/common.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "attention/attention.hpp"
#include "device/device.hpp"
#include "model/model_file.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "training/train_state.hpp"

namespace polysketch::commands {
namespace {

namespace fs = std::filesystem;

CheckpointStore::Loaded find_checkpoint(const std::string& path) {
  require_run_folder(path);
  if (kind_of_file(path) == FileKind::nothing)
    throw UserError(ExitCode::missing_input, path + ": there is no such run or checkpoint folder");
  const fs::path folder = fs::path(path).lexically_normal();
  if (kind_of_file(folder / "manifest.json") != FileKind::nothing)
    return CheckpointStore(folder.parent_path().parent_path(), {}).verify(folder);
  auto found = CheckpointStore(folder, {}).newest_valid();
  if (!found)
    throw UserError(ExitCode::missing_input,
                    path + ": holds no checkpoint: give a run folder or a folder step-…/ of one");
  return *found;
}

}  // namespace

void require_run_folder(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored) || fs::is_directory(path, ignored)) return;
  std::string hint;
  const std::string ending = fs::path(path).extension().string();
  if (ending == ".yaml" || ending == ".yml") {
    try {
      const std::string run = load_config(path).run.directory;
      hint = fmt::format("; this configuration's is {}{}", run,
                         fs::is_directory(run, ignored) ? "" : ", which is not there yet");
    } catch (const UserError&) {  // no configuration either
    }
  }
  throw UserError(
      ExitCode::usage,
      fmt::format("{}: is a file: give a run folder, or a checkpoint folder of one{}", path, hint));
}

void add_config_arguments(CLI::App& command, ConfigArguments& arguments) {
  command.add_option("config", arguments.file, "configuration file (YAML)")
      ->required()
      ->type_name("CONFIG");
  command
      .add_option("--set", arguments.overrides,
                  "override a key, e.g. --set training.steps=1k; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void add_model_arguments(CLI::App& command, ModelArguments& arguments) {
  command
      .add_option("run", arguments.path,
                  "run folder (its newest whole checkpoint) or one checkpoint folder")
      ->required()
      ->type_name("RUN");
  command
      .add_option("--set", arguments.overrides,
                  "override a key of the run's configuration, e.g. --set data.root=/data/pg19")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_option("--device", arguments.device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str();
}

namespace {

/// Names and shapes of what a layer of attention learns. Where two kinds learn the same, a
/// checkpoint of one can be read with the other: exact polynomial attention in place of random
/// sketches, blocks of another length, other random features.
std::vector<std::pair<std::string, std::vector<int64_t>>> learned_tensors(const Config& config) {
  const auto attention = make_attention(
      config.attention, {config.model.heads, config.model.width / config.model.heads});
  std::vector<std::pair<std::string, std::vector<int64_t>>> all;
  for (const AttentionParameter& parameter : attention->parameters())
    all.emplace_back(parameter.name, parameter.value.sizes().vec());
  return all;
}

}  // namespace

LoadedModel load_model(const ModelArguments& arguments,
                       const std::function<void(const LoadedModel&, const at::Device&)>& check) {
  LoadedModel loaded;
  loaded.checkpoint = find_checkpoint(arguments.path);
  const nlohmann::json& state = loaded.checkpoint.manifest.state;
  // Its hash says that nothing has changed; another program may still have written less.
  for (const char* key : {"config", "tokenizer_sha256", "train"}) {
    if (!state.contains(key))
      throw UserError(ExitCode::no_checkpoint,
                      fmt::format("{}: manifest.json lacks '{}': use another checkpoint",
                                  loaded.checkpoint.directory.string(), key));
  }
  const Config saved = config_from_json(state.at("config"));
  loaded.config = config_from_json(state.at("config"), arguments.overrides);
  for (const std::string& difference : config_difference(saved, loaded.config)) {
    const bool other_attention = difference.starts_with("attention.") &&
                                 learned_tensors(saved) != learned_tensors(loaded.config);
    if (difference.starts_with("model.") || other_attention) {
      throw UserError(
          ExitCode::config,
          "--set " + difference +
              ": the checkpoint was trained with a different model; keep the original value");
    }
    if (difference.starts_with("attention.")) log_info("not as in training: " + difference);
  }
  loaded.tokenizer = std::make_unique<Tokenizer>(loaded.config.data.tokenizer.path);
  loaded.tokenizer->require_fits(loaded.config.model.vocabulary, loaded.config.data.cleaning);
  const std::string wanted = state.at("tokenizer_sha256").get<std::string>();
  if (loaded.tokenizer->sha256() != wanted) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: is not the tokenizer of this run (SHA-256 {}, the run's {}): --set "
                    "data.tokenizer.path=FILE",
                    loaded.config.data.tokenizer.path, loaded.tokenizer->sha256(), wanted));
  }
  Transformer::Options options;
  options.model = loaded.config.model;
  options.attention = loaded.config.attention;
  options.device = open_device(arguments.device, loaded.config.training.threads);
  if (check) check(loaded, options.device);
  options.compute =
      loaded.config.training.precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
  options.initialize = false;
  // random sketches and features are drawn from it
  options.seed = static_cast<uint64_t>(loaded.config.run.seed);
  loaded.model = std::make_unique<Transformer>(options);
  loaded.model->at_step(std::max<int64_t>(0, TrainState::from_json(state.at("train")).step - 1));
  const TensorSet set(loaded.checkpoint.directory, loaded.checkpoint.manifest.files, "model");
  Parameters& parameters = loaded.model->parameters();
  load_tensors(parameters, set, "",
               [&](size_t index, const at::Tensor& value) { parameters.assign(index, value); });
  return loaded;
}

Split parse_split(const std::string& word) {
  if (word == "train") return Split::train;
  if (word == "validation") return Split::validation;
  if (word == "test") return Split::test;
  throw UserError(ExitCode::usage,
                  fmt::format("--split: got '{}', want train, validation or test", word));
}

}  // namespace polysketch::commands
