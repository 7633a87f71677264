// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "model/cost.hpp"
#include "planning/cluster_plan.hpp"
#include "reporting/number_text.hpp"
#include "support/standard_streams.hpp"
#include "support/units.hpp"
#include "training/trainer.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ConfigArguments config;
  double tokens_per_second = 0;  ///< 0: not given
  ClusterArguments cluster;
  bool json = false;
};

void run(const Arguments& arguments) {
  const Config config = arguments.config.resolve().config;
  const double speed = arguments.tokens_per_second;
  nlohmann::ordered_json cluster;
  if (arguments.cluster.given()) cluster = cluster_plan(config, arguments.cluster, speed);
  const TrainingConfig& training = config.training;
  const int64_t sequences = training.batch_tokens / config.data.context;
  const bool gpu = training.device.starts_with("cuda");
  const int64_t micro =
      micro_batch_rows(training, config.data.context, sequences, gpu) * config.data.context;
  const ModelCost cost =
      model_cost(config.model, config.attention, training.precision, config.data.context, micro);
  const int64_t total = cost.training_bytes();
  const double tokens =
      static_cast<double>(training.steps) * static_cast<double>(training.batch_tokens);
  const double seconds = speed > 0 ? tokens / speed : 0;
  if (arguments.json) {
    nlohmann::ordered_json json{{"parameters", cost.parameters},
                                {"embedding_parameters", cost.embedding_parameters},
                                {"flops_per_token", cost.flops_per_token},
                                {"flops_per_token_causal", cost.flops_per_token_causal},
                                {"micro_batch_tokens", micro},
                                {"weight_bytes", cost.weight_bytes},
                                {"gradient_bytes", cost.gradient_bytes},
                                {"optimizer_bytes", cost.optimizer_bytes},
                                {"activation_bytes", cost.activation_bytes},
                                {"total_bytes", total},
                                {"checkpoint_bytes", cost.checkpoint_bytes},
                                {"steps", training.steps},
                                {"tokens", tokens},
                                {"total_flops", tokens * cost.flops_per_token},
                                {"seconds", nullptr}};
    if (speed > 0) json["seconds"] = seconds;
    if (!cluster.is_null()) json["cluster"] = cluster;
    return print_json(json);
  }
  const auto& m = config.model;
  std::string text =
      fmt::format(
          "model          {} parameters, {} of them embedding; {} layers x {} wide, {} "
          "heads, hidden {}, vocabulary {}\n",
          format_count(cost.parameters), format_count(cost.embedding_parameters), m.layers, m.width,
          m.heads, m.hidden, m.vocabulary) +
      fmt::format(
          "FLOPs a token  {:.4g} G with all T x T pairs, {:.4g} G causal (forward and "
          "backward, T = {})\n",
          cost.flops_per_token / 1e9, cost.flops_per_token_causal / 1e9, config.data.context) +
      fmt::format("run            {} steps of {} tokens = {} tokens, {:.3g} FLOPs\n",
                  training.steps, format_count(training.batch_tokens),
                  format_count(static_cast<int64_t>(std::min(tokens, 9e18))),
                  tokens * cost.flops_per_token) +
      fmt::format(
          "memory         {} = weights {} + gradients {} + optimiser {} + activations {} "
          "(micro-batch of {} tokens)\n",
          format_bytes(total), format_bytes(cost.weight_bytes), format_bytes(cost.gradient_bytes),
          format_bytes(cost.optimizer_bytes), format_bytes(cost.activation_bytes),
          format_count(micro)) +
      fmt::format("checkpoint     {}\n", format_bytes(cost.checkpoint_bytes));
  if (speed > 0)
    text += fmt::format("time           {} at {} tokens/s\n", format_duration(seconds),
                        short_rate(speed));
  if (!cluster.is_null()) text += cluster_plan_text(cluster);
  print(text);
}

}  // namespace

void add_plan(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "plan", "Parameters, FLOPs, memory and time of a configuration, without running it");
  command->footer(
      "  polysketch plan configs/pg19/small-8k-learned-local-32.yaml\n"
      "  polysketch plan configs/pg19/small-8k-learned-local-32.yaml --nodes 16 --gpus 8 "
      "--interconnect 400Gb --scaling");
  auto arguments = std::make_shared<Arguments>();
  add_config_arguments(*command, arguments->config);
  auto* speed = add_checked(*command, "--tokens-per-second", "N", "",
                            "a measured speed of one device (bench step), for the time",
                            [arguments](const std::string& text) {
                              arguments->tokens_per_second =
                                  checked_speed("--tokens-per-second", text);
                            });
  add_cluster_arguments(*command, arguments->cluster, speed);
  command->add_flag("--json", arguments->json, "print one JSON object");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace polysketch::commands
