// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace polysketch {

/// One measurement of a trained model, kept as a row of `<run>/evaluations.jsonl`. Any task fits:
/// `measured` says what was measured and how, so that two rows with equal `measured` can be
/// compared; `figures` are the results.
struct EvaluationRecord {
  std::string task;        ///< "perplexity"
  double time = 0;         ///< seconds since 1970
  int64_t step = 0;        ///< of the checkpoint
  int64_t tokens = 0;      ///< on which the checkpoint was trained
  std::string checkpoint;  ///< tells checkpoints of one step apart
  nlohmann::ordered_json measured = nlohmann::ordered_json::object();
  nlohmann::ordered_json figures = nlohmann::ordered_json::object();
  std::string device, program;  ///< what computed it
};

/// Appends the row, durably, with the present time; several processes may do so at once. A folder
/// that cannot be written costs one warning and nothing else.
void keep_evaluation(const std::filesystem::path& run, EvaluationRecord record);

struct KeptEvaluations {
  std::vector<EvaluationRecord> records;  ///< in the order of the file
  int64_t damaged_rows = 0;
};
/// What was kept; nothing if nothing was. Tasks and members that this version does not know are no
/// damage.
KeptEvaluations read_evaluations(const std::filesystem::path& run);

/// The run folder that holds this checkpoint folder (`<run>/checkpoints/step-…`); nothing for a
/// checkpoint that lies elsewhere.
std::optional<std::filesystem::path> run_of_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace polysketch
