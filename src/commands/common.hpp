// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "config/load.hpp"
#include "data/tokenizer.hpp"
#include "model/transformer.hpp"

namespace CLI {
class App;
}

namespace polysketch::commands {

/// CONFIG and --set of the commands that read a configuration file.
struct ConfigArguments {
  std::string file;
  std::vector<std::string> overrides;
  ResolvedConfig resolve() const { return resolve_config(file, overrides); }
};
void add_config_arguments(CLI::App& command, ConfigArguments& arguments);

/// Throws UserError 64 if `path`, where a run or a checkpoint is wanted, is a file: most often the
/// configuration that the run was started with.
void require_run_folder(const std::string& path);

/// A trained model: of a run folder (its newest whole checkpoint) or of one checkpoint folder.
struct ModelArguments {
  std::string path;
  std::vector<std::string> overrides;
  std::string device = "auto";
};
void add_model_arguments(CLI::App& command, ModelArguments& arguments);

struct LoadedModel {
  Config config;  ///< the checkpoint's, with overrides of data, evaluation and device
  CheckpointStore::Loaded checkpoint;
  std::unique_ptr<Transformer> model;
  std::unique_ptr<Tokenizer> tokenizer;
};
/// Throws UserError 66 (nothing there), 81 (damaged), 65 (another tokenizer than the run's), 78 (an
/// override that would make it another model).
/// `check`, if given, is asked before the model is made, with everything else and its device.
LoadedModel load_model(
    const ModelArguments& arguments,
    const std::function<void(const LoadedModel&, const at::Device&)>& check = {});

/// A training or evaluation `Split` from its word. Throws UserError 64.
Split parse_split(const std::string& word);

}  // namespace polysketch::commands
