// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>

#include "commands/cluster_plan.hpp"
#include "model/accelerator.hpp"

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
  add(command.add_option("--nodes", a.nodes, "machines")
          ->check(CLI::Range(1, 1'000'000))
          ->capture_default_str());
  add(command.add_option("--gpus", a.gpus, "GPUs of a machine")
          ->check(CLI::Range(1, 1024))
          ->capture_default_str());
  auto* interconnect =
      add(command
              .add_option("--interconnect", a.interconnect,
                          "what one link between machines carries in each direction, like 400Gb")
              ->type_name("RATE"));
  auto* links = add(command.add_option("--links", a.links, "such links of a machine")
                        ->check(CLI::Range(1, 1024))
                        ->capture_default_str());
  auto* latency = add(command.add_option("--latency", a.latency, "of a message between machines")
                          ->type_name("TIME")
                          ->capture_default_str());
  add(command
          .add_option("--intranode", a.intranode,
                      "what a GPU exchanges with others of its machine, both directions together, "
                      "like 900GB; default: the GPU's data sheet")
          ->type_name("RATE"));
  add(command
          .add_option("--intranode-latency", a.intranode_latency, "of a message inside a machine")
          ->type_name("TIME")
          ->capture_default_str());
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
  auto* mfu =
      add(command.add_option("--mfu", a.mfu, "share of the peak that forward and backward reach")
              ->check(CLI::Range(1e-6, 1.0))
              ->capture_default_str());
  auto* step =
      add(command
              .add_option("--step", a.step,
                          "compute time from 'bench step --json' of the same configuration instead")
              ->type_name("FILE"));
  mfu->excludes(step)->excludes(tokens_per_second);
  step->excludes(tokens_per_second);
  add(command
          .add_option("--memory-bandwidth", a.memory_bandwidth,
                      "of a GPU, like 3.35TB; default: its data sheet")
          ->type_name("RATE"));
  add(command
          .add_option(
              "--overlap", a.overlap,
              "speed of exchanges while backward runs, as a share of their own; 0: they wait")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str());
  add(command.add_flag("--scaling", a.scaling,
                       "also 1, 2, 4, ... GPUs: the same step, and the same share of each GPU"));
}

}  // namespace polysketch::commands
