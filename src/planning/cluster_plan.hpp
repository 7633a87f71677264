// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/config.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace polysketch::commands {

/// The options of `plan` for many GPUs.
struct ClusterArguments {
  int64_t nodes = 1, gpus = 1, links = 1;
  double interconnect = 0, intranode = 0, memory_bandwidth = 0;  ///< bytes a second; 0: not given
  double latency = 10e-6, intranode_latency = 5e-6;              ///< seconds
  std::string gpu = "H100", route = "hierarchical", collectives, step;
  double mfu = 0.4, overlap = 1;
  bool scaling = false;
  std::vector<CLI::Option*> options;
  bool given() const;                           ///< whether the user wrote any of them
  bool wrote(const std::string& option) const;  ///< whether the user wrote this one
};
void add_cluster_arguments(CLI::App& command, ClusterArguments& arguments,
                           CLI::Option* tokens_per_second);

/// The prediction as JSON: see docs/cluster-cost.md. tokens_per_second: of one GPU, forward and
/// backward; 0: not given. Throws UserError 64 (units, a missing speed), 65 and 66 (measured
/// files), 78 (a step does not divide among so many GPUs).
nlohmann::ordered_json cluster_plan(const Config& config, const ClusterArguments& arguments,
                                    double tokens_per_second);

/// The same for people.
std::string cluster_plan_text(const nlohmann::ordered_json& plan);

}  // namespace polysketch::commands
