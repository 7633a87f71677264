// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "config/config.hpp"
#include "planning/cluster_cost.hpp"

namespace polysketch::commands {

/// What `bench step --json` measured, as far as a plan needs it.
struct MeasuredStep {
  double seconds = 0;  ///< of a whole step on one device, optimiser included
  double batch_tokens = 0;
  int64_t micro_batch_tokens = 0;
  std::string device;
};

/// Reads `bench step --json` from a file. Throws UserError 66 (no file), 65 (not that JSON, or
/// measured with another model, context, attention or precision than `config` has).
MeasuredStep read_measured_step(const std::string& file, const Config& config);

/// What `bench collectives --json` measured.
struct MeasuredCollectives {
  std::string transport;  ///< "gloo" or "nccl"
  int64_t world = 0;
  LinkFit fit;
};

/// Reads from a file
///   {"transport": "gloo", "world": 4, "sizes": [{"bytes": 1048576, "all_reduce_seconds": 1e-3,
///   "reduce_scatter_seconds": 5e-4,
///                                                "all_gather_seconds": 5e-4}, ...]}
/// and fits latency and bandwidth. bytes: the whole vector in every process before (all-gather:
/// after) the exchange. An exchange may be missing or null; other members are ignored. Throws
/// UserError 66 (no file), 65 (not that JSON, one process, a single size).
MeasuredCollectives read_measured_collectives(const std::string& file);

}  // namespace polysketch::commands
