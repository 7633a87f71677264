// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "config/config.hpp"
#include "data/corpus_identity.hpp"
#include "distributed/collectives.hpp"
#include "model/transformer.hpp"
#include "training/adamw.hpp"
#include "training/train_state.hpp"

namespace polysketch {

// What a checkpoint of a run holds, and what may be different when it goes on.

/// What the training state needs to be understood: kept beside it, compared on continuing.
struct RunFacts {
  std::string tokenizer_sha256;
  CorpusIdentity training_files;
  std::string device;
  int64_t processes = 1;
};

/// The `state` of a manifest (docs/formats.md).
nlohmann::json checkpoint_state(const TrainState& state, const Config& config,
                                const RunFacts& facts);

/// Masters and moments, as far as this process writes them; what others keep of that is fetched, so
/// all call it together. On the CPU the groups point into the live tensors.
std::vector<TensorGroup> training_tensors(Parameters& parameters, AdamW& optimizer,
                                          Collectives& collectives, const Peers& peers);

/// Puts the tensors of a checkpoint into model and optimiser.
void restore_training_tensors(const CheckpointStore::Loaded& checkpoint, Parameters& parameters,
                              AdamW& optimizer);

/// Throws UserError 78 if the configuration may not go on from the checkpoint: another model or
/// other data, or another recipe without `allow_recipe`. Returns the changes of the recipe that
/// were allowed, one a line; empty if there are none.
std::string check_configuration(const CheckpointStore::Loaded& checkpoint, const Config& config,
                                bool allow_recipe);

/// Throws UserError 65 if the run was started with another tokenizer.
void check_tokenizer(const CheckpointStore::Loaded& checkpoint, const std::string& path,
                     const std::string& sha256);

/// Name and value pairs as an object, in their order.
nlohmann::ordered_json pairs_to_json(const std::vector<std::pair<std::string, std::string>>& pairs);

}  // namespace polysketch
