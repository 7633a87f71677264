// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "config/load.hpp"
#include "data/corpus.hpp"
#include "data/tokenizer.hpp"
#include "model/cost.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"

namespace polysketch::commands {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> overrides;
  bool json = false;
  bool changed = false;
  bool no_data = false;
};

void add_inputs(CLI::App& command, Options& options) {
  command.add_option("FILE", options.file, "configuration file (YAML)")->required();
  command
      .add_option("--set", options.overrides,
                  "override a key; may be given again: --set training.steps=1k")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

/// Whether what the configuration names is there and fits together, without reading the text.
/// Returns what was found; throws UserError with every problem, a line each, and the code of the
/// first.
std::string check_data(const Config& config) {
  std::vector<std::string> found;
  std::optional<ExitCode> code;
  std::string problems;
  const auto attempt = [&](const std::function<void()>& look) {
    try {
      look();
    } catch (const UserError& error) {
      // The machine's trouble, not the configuration's: it would only be told again.
      if (error.code() == ExitCode::io || error.code() == ExitCode::resources) throw;
      if (!code) code = error.code();
      problems += (problems.empty() ? "" : "\n") + std::string(error.what());
    }
  };
  attempt([&] {
    const Corpus corpus = Corpus::open(config.data);
    std::vector<Split> splits{Split::train};
    const Split scored = config.evaluation.split;
    if (config.evaluation.every > 0 && scored != Split::train) splits.push_back(scored);
    for (const Split split : splits) {
      attempt([&] {
        const char* name = split == Split::train        ? "training"
                           : split == Split::validation ? "validation"
                                                        : "test";
        found.push_back(fmt::format("{} {} files", corpus.files(split).size(), name));
      });
    }
  });
  attempt([&] {
    const Tokenizer tokenizer(config.data.tokenizer.path);
    tokenizer.require_fits(config.model.vocabulary, config.data.cleaning);
    if (const auto unused = unused_rows(config.model, tokenizer.vocabulary())) log_warning(*unused);
    found.push_back(fmt::format("a tokenizer of {} pieces", tokenizer.vocabulary()));
  });
  if (code) throw UserError(*code, problems);
  return fmt::format("{}", fmt::join(found, ", "));
}

void check(const Options& options) {
  const Config config = load_config(options.file, options.overrides);
  std::string found;
  if (!options.no_data) found = "; found " + check_data(config);
  print(options.file + ": valid" + found + "\n");
}

void show(const Options& options) {
  const ResolvedConfig resolved = resolve_config(options.file, options.overrides);
  if (!options.json) return print(options.changed ? changed_to_yaml(resolved) : to_yaml(resolved));
  nlohmann::ordered_json sources = nlohmann::ordered_json::object();
  for (const auto& [key, source] : resolved.sources) {
    const auto& changed = resolved.changed;
    if (!options.changed || std::find(changed.begin(), changed.end(), key) != changed.end())
      sources[key] = source;
  }
  print_json({{"config", options.changed ? changed_to_json(resolved) : to_json(resolved.config)},
              {"sources", sources}});
}

}  // namespace

void add_config(CLI::App& app) {
  CLI::App* config = app.add_subcommand(
      "config", "Check and show configurations; print their schema and reference");
  config->require_subcommand(1);
  const auto options = std::make_shared<Options>();

  CLI::App* check_command = config->add_subcommand(
      "check",
      "Say whether a configuration is valid (exit code 0, or 78 and every mistake), and "
      "whether its data and tokenizer are there and fit (66, 65 or 78)");
  add_inputs(*check_command, *options);
  check_command->add_flag("--no-data", options->no_data,
                          "look at the configuration alone: data and tokenizer are elsewhere");
  check_command->callback([options] { check(*options); });

  CLI::App* show_command = config->add_subcommand(
      "show", "Print every key with its value and where the value came from");
  add_inputs(*show_command, *options);
  show_command->add_flag("--changed", options->changed,
                         "only what differs from the defaults: the shortest file that means the "
                         "same");
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
