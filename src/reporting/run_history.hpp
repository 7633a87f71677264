// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "reporting/evaluation_record.hpp"

namespace polysketch {

/// What a run folder tells of its run, as the report needs it. NaN stands for a figure that a row
/// lacks or that was not finite.
struct StepRow {
  int64_t step = 0;
  double tokens = 0, loss = 0, learning_rate = 0, gradient_norm = 0, tokens_per_second = 0,
         seconds = 0, data_wait = 0, mfu = 0, peak_bytes = 0;
};

struct ValidationRow {
  int64_t step = 0;
  double tokens = 0, loss = 0, perplexity = 0, bits_per_byte = 0, seconds = 0;
};

/// Means over the layers.
struct DiagnosticsRow {
  int64_t step = 0;
  double tokens = 0, sketch_error = 0, smallest_normaliser = 0, largest_score = 0,
         share_outside_block = 0, effective_rank = 0;
};

/// What the run said of itself when it was last started.
struct StartRow {
  double parameters = 0, flops_per_token = 0;
  std::string device, commit;
};

/// A start that went on from a checkpoint.
struct Resumption {
  int64_t step = 0;
  double tokens = 0;
};

enum class RunState {
  open,  ///< running, or interrupted without a word
  stopped,
  failed,
  finished,
};

// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann's move only throws from an internal assertion
struct RunHistory {
  std::string name;  ///< run.name of its config, else the folder's
  std::filesystem::path folder;
  std::vector<StepRow> steps;               ///< by step
  std::vector<ValidationRow> validations;   ///< by step
  std::vector<DiagnosticsRow> diagnostics;  ///< by step
  std::optional<StartRow> start;            ///< the last one
  int64_t starts = 0;                       ///< how often it was started and did something
  std::vector<Resumption> resumptions;
  RunState state = RunState::open;
  std::string error;  ///< the message of a run that failed
  double checkpoint_seconds = 0;
  int64_t damaged_rows = 0;
  std::vector<EvaluationRecord> evaluations;  ///< in the order in which they were made
  int64_t damaged_evaluations = 0;
  std::map<std::string, std::string> config;  ///< "section.key" -> value, from config.yaml
  std::string config_text;
  nlohmann::ordered_json about;        ///< run.json: versions and machine; null without it
  std::optional<std::string> samples;  ///< samples.txt
};

/// Reads `<run>/metrics.jsonl` and what stands beside it. Damaged rows are counted. Evaluations
/// from before the run's first row are of an earlier run in the same folder and left out. Throws
/// UserError 66 if the folder or its metrics.jsonl is missing, 65 if that has no rows of steps or
/// validations.
RunHistory read_run(const std::filesystem::path& run);

/// Adds the folder to names that several runs share, so that a reader can tell them apart.
void tell_names_apart(std::vector<RunHistory>& runs);

/// The two-level text that the program writes as config.yaml, as "section.key" -> value.
std::map<std::string, std::string> flatten_config(const std::string& yaml);

}  // namespace polysketch
