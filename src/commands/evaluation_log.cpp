// SPDX-License-Identifier: Apache-2.0
#include "commands/evaluation_log.hpp"

#include <fmt/format.h>

#include <utility>

#include "device/device.hpp"
#include "reporting/evaluation_record.hpp"
#include "support/build_info.hpp"
#include "support/hash.hpp"
#include "training/train_state.hpp"

namespace polysketch::commands {

std::string checkpoint_identity(const CheckpointStore::Loaded& checkpoint) {
  Sha256 hash;
  for (const FileRecord& file : checkpoint.manifest.files)
    hash.update(file.sha256.data(), file.sha256.size());
  return fmt::format("step {} {}", checkpoint.step, hash.hex().substr(0, 16));
}

void keep_result(const LoadedModel& loaded, const std::string& task,
                 nlohmann::ordered_json measured, nlohmann::ordered_json figures) {
  const auto run = run_of_checkpoint(loaded.checkpoint.directory);
  if (!run) return;
  const nlohmann::json& state = loaded.checkpoint.manifest.state;
  measured["precision"] = loaded.config.training.precision == Precision::bf16 ? "bf16" : "fp32";
  for (const std::string& difference :
       config_difference(config_from_json(state.at("config")), loaded.config)) {
    if (difference.starts_with("attention.")) measured["changed"].push_back(difference);
  }
  measured["tokenizer"] = loaded.tokenizer->sha256().substr(0, 12);
  EvaluationRecord record;
  record.task = task;
  record.step = loaded.checkpoint.step;
  record.tokens = TrainState::from_json(state.at("train")).tokens;
  record.checkpoint = checkpoint_identity(loaded.checkpoint);
  record.measured = std::move(measured);
  record.figures = std::move(figures);
  record.device = device_name(loaded.model->options().device);
  record.program =
      fmt::format("polysketch {} ({})", build_info().at(0).second, build_info().at(1).second);
  keep_evaluation(*run, std::move(record));
}

}  // namespace polysketch::commands
