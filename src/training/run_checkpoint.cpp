// SPDX-License-Identifier: Apache-2.0
#include "training/run_checkpoint.hpp"

#include <fmt/format.h>

#include "checkpoint/tensor_set.hpp"
#include "config/load.hpp"
#include "distributed/gather_flat.hpp"
#include "model/model_file.hpp"
#include "support/build_info.hpp"
#include "support/error.hpp"
#include "training/learning_rate.hpp"

namespace polysketch {

nlohmann::ordered_json pairs_to_json(
    const std::vector<std::pair<std::string, std::string>>& pairs) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : pairs) json[name] = value;
  return json;
}

nlohmann::json checkpoint_state(const TrainState& state, const Config& config,
                                const RunFacts& facts) {
  return {{"train", state.to_json()},
          {"processes", facts.processes},
          {"config", to_json(config)},
          {"tokenizer_sha256", facts.tokenizer_sha256},
          {"training_files", facts.training_files.to_json()},
          {"device", facts.device},
          {"build", pairs_to_json(build_info())},
          {"machine", pairs_to_json(machine_info())}};
}

std::vector<TensorGroup> training_tensors(Parameters& parameters, AdamW& optimizer,
                                          Collectives& collectives, const Peers& peers) {
  at::Tensor masters, first = optimizer.first_moment(), second = optimizer.second_moment();
  const auto gather = [&](const auto& own_part, size_t buffers, size_t buffer, const char* what) {
    const auto ranges =
        written_elements(parameters, parameters.master_type(), buffers, peers.rank, peers.world);
    return gather_flat(collectives, parameters, own_part, ranges[buffer], what);
  };
  if (parameters.masters_sharded()) {
    masters = gather([&](size_t i) { return parameters.owned_master(i); }, 1, 0, "masters");
  } else {
    masters = parameters.flat_master();
  }
  if (optimizer.sharded()) {
    first = gather([&](size_t i) { return optimizer.owned_part(optimizer.first_moment(), i); }, 2,
                   0, "first moments");
    second = gather([&](size_t i) { return optimizer.owned_part(optimizer.second_moment(), i); }, 2,
                    1, "second moments");
  }
  return {tensor_group("model", parameters, {{"", masters}}, peers),
          tensor_group("optimizer", parameters,
                       {{"first_moment.", first}, {"second_moment.", second}}, peers)};
}

void restore_training_tensors(const CheckpointStore::Loaded& checkpoint, Parameters& parameters,
                              AdamW& optimizer) {
  const auto& files = checkpoint.manifest.files;
  const TensorSet model(checkpoint.directory, files, "model"),
      moments(checkpoint.directory, files, "optimizer");
  load_tensors(parameters, model, "",
               [&](size_t index, const at::Tensor& value) { parameters.assign(index, value); });
  load_tensors(parameters, moments, "first_moment.", [&](size_t index, const at::Tensor& value) {
    optimizer.assign(optimizer.first_moment(), index, value);
  });
  load_tensors(parameters, moments, "second_moment.", [&](size_t index, const at::Tensor& value) {
    optimizer.assign(optimizer.second_moment(), index, value);
  });
}

std::string check_configuration(const CheckpointStore::Loaded& checkpoint, const Config& config,
                                bool allow_recipe) {
  const Config before = config_from_json(checkpoint.manifest.state.at("config"));
  std::vector<ConfigChange> changes = config_changes(before, config);
  const int64_t done = TrainState::from_json(checkpoint.manifest.state.at("train")).step;
  const bool longer =
      steps_may_change(config.schedule, done, before.training.steps, config.training.steps);
  std::erase_if(changes, [&](const ConfigChange& change) {
    return change.effect == Effect::free || (change.key == "training.steps" && longer);
  });
  if (changes.empty()) return "";
  std::string text;
  bool model = false;
  for (const ConfigChange& change : changes) {
    text += (text.empty() ? "" : "\n  ") + change.text;
    model = model || change.effect == Effect::model;
  }
  if (allow_recipe && !model) return text;
  throw UserError(
      ExitCode::config,
      fmt::format("{}: the checkpoint was made under another configuration (checkpoint -> now):"
                  "\n  {}\n{}",
                  checkpoint.directory.string(), text,
                  model ? "choose another run.directory, or restore the original values"
                        : "restore the original values, choose another run.directory, or continue "
                          "with --allow-config-change"));
}

void check_tokenizer(const CheckpointStore::Loaded& checkpoint, const std::string& path,
                     const std::string& sha256) {
  const auto before = checkpoint.manifest.state.at("tokenizer_sha256").get<std::string>();
  if (before == sha256) return;
  throw UserError(ExitCode::bad_data,
                  fmt::format("{}: the run was started with another tokenizer (SHA-256 {}, now "
                              "{}): set data.tokenizer.path to that one, or choose another "
                              "run.directory",
                              path, before, sha256));
}

}  // namespace polysketch
