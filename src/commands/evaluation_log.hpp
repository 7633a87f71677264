// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "commands/common.hpp"

namespace polysketch::commands {

/// Keeps a result in the run that the checkpoint belongs to, if it belongs to one; the report shows
/// it. `measured` and `figures` as in EvaluationRecord; what the model and the machine add to
/// `measured` (precision, an attention other than in training, tokenizer) is added here.
void keep_result(const LoadedModel& loaded, const std::string& task,
                 nlohmann::ordered_json measured, nlohmann::ordered_json figures);

/// What tells one checkpoint from another: the hashes of its files.
std::string checkpoint_identity(const CheckpointStore::Loaded& checkpoint);

}  // namespace polysketch::commands
