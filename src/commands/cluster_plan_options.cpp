// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>

#include "commands/number_options.hpp"
#include "device/accelerator.hpp"
#include "planning/cluster_plan.hpp"

namespace polysketch::commands {

bool ClusterArguments::given() const {
  return std::any_of(options.begin(), options.end(),
                     [](const CLI::Option* option) { return option->count() > 0; });
}

bool ClusterArguments::wrote(const std::string& option) const {
  return std::any_of(options.begin(), options.end(), [&](const CLI::Option* one) {
    return one->check_name(option) && one->count() > 0;
  });
}

void add_cluster_arguments(CLI::App& command, ClusterArguments& a, CLI::Option* tokens_per_second) {
  const auto add = [&](CLI::Option* option) {
    option->group("Many GPUs (a prediction; docs/cluster-cost.md)");
    a.options.push_back(option);
    return option;
  };
  std::vector<std::string> gpus;
  for (const Accelerator& one : accelerators()) gpus.emplace_back(one.name);
  constexpr double longest = 3600;
  add(add_count(command, "--nodes", a.nodes, 1, 1'000'000, "machines"));
  add(add_count(command, "--gpus", a.gpus, 1, 1024, "GPUs of a machine"));
  auto* interconnect =
      add(add_bandwidth(command, "--interconnect", a.interconnect,
                        "what one link between machines carries in each direction, like 400Gb"));
  auto* links = add(add_count(command, "--links", a.links, 1, 1024, "such links of a machine"));
  auto* latency = add(add_duration(command, "--latency", a.latency, 0, longest, "10us",
                                   "of a message between machines"));
  add(add_bandwidth(command, "--intranode", a.intranode,
                    "what a GPU exchanges with others of its machine, both directions together, "
                    "like 900GB; default: the GPU's data sheet"));
  add(add_duration(command, "--intranode-latency", a.intranode_latency, 0, longest, "5us",
                   "of a message inside a machine"));
  add(command.add_option("--route", a.route, "hierarchical or ring")
          ->check(CLI::IsMember({"hierarchical", "ring"}))
          ->capture_default_str());
  add(command
          .add_option("--collectives", a.collectives,
                      "latency and bandwidth of the slower link from 'bench collectives --json' "
                      "instead (one process a machine, or all of "
                      "one machine)")
          ->type_name("FILE"))
      ->excludes(interconnect)
      ->excludes(links)
      ->excludes(latency);
  add(command.add_option("--gpu", a.gpu, "whose data sheet gives peak, memory and link")
          ->check(CLI::IsMember(gpus))
          ->capture_default_str());
  auto* mfu = add(add_real(command, "--mfu", a.mfu, 1e-6, 1,
                           "share of the peak that forward and backward reach"));
  auto* step =
      add(command
              .add_option("--step", a.step,
                          "compute time from 'bench step --json' of the same configuration instead")
              ->type_name("FILE"));
  mfu->excludes(step)->excludes(tokens_per_second);
  step->excludes(tokens_per_second);
  add(add_bandwidth(command, "--memory-bandwidth", a.memory_bandwidth,
                    "of a GPU, like 3.35TB; default: its data sheet"));
  add(add_real(command, "--overlap", a.overlap, 0, 1,
               "speed of exchanges while backward runs, as a share of their own; 0: they wait"));
  add(command.add_flag("--scaling", a.scaling,
                       "also 1, 2, 4, ... GPUs: the same step, and the same share of each GPU"));
}

}  // namespace polysketch::commands
