// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "config/load.hpp"
#include "support/standard_streams.hpp"

namespace polysketch::commands {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  bool json = false;
};

void add_inputs(CLI::App& command, Options& options) {
  command.add_option("FILE", options.file, "configuration file (YAML)")->required();
  command
      .add_option("--set", options.overrides,
                  "override a key; may be given again: --set training.steps=1k")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void check(const Options& options) {
  load_config(options.file, options.overrides);
  print(options.file + ": right\n");
}

void show(const Options& options) {
  const ResolvedConfig resolved = resolve_config(options.file, options.overrides);
  if (!options.json) return print(to_yaml(resolved));
  nlohmann::ordered_json sources;
  for (const auto& [key, source] : resolved.sources) sources[key] = source;
  print_json({{"config", to_json(resolved.config)}, {"sources", sources}});
}

}  // namespace

void add_config(CLI::App& app) {
  CLI::App* config = app.add_subcommand(
      "config", "Check and show configurations; print their schema and reference");
  config->require_subcommand(1);
  const auto options = std::make_shared<Options>();

  CLI::App* check_command = config->add_subcommand(
      "check", "Say whether a configuration is right: exit code 0, or 78 and every mistake");
  add_inputs(*check_command, *options);
  check_command->callback([options] { check(*options); });

  CLI::App* show_command = config->add_subcommand(
      "show", "Print every key with its value and where the value came from");
  add_inputs(*show_command, *options);
  show_command->add_flag("--json", options->json,
                         "print JSON: {\"config\": ..., \"sources\": ...}");
  show_command->callback([options] { show(*options); });

  config->add_subcommand("schema", "Print the JSON schema of configuration files, for editors")
      ->callback([] { print_json(config_schema()); });
  config
      ->add_subcommand("reference",
                       "Print all keys with type, default, range and meaning (Markdown)")
      ->callback([] { print(config_reference()); });
}

}  // namespace polysketch::commands
