// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "support/exit.hpp"
#include "support/stop_signal.hpp"
#include "training/trainer.hpp"

namespace polysketch::commands {

void add_train(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("train", "Train a model, or continue the run where it stood");
  command->footer(
      "The run lives in run.directory: configuration, log, metrics.jsonl, TensorBoard events, "
      "checkpoints. The same command\n"
      "continues a run that was stopped. SIGTERM, SIGINT and SIGUSR1 finish the step, save and "
      "exit with 75.\n\n"
      "  polysketch train configs/demo.yaml\n"
      "  polysketch train configs/pg19/small-8k-softmax.yaml --set data.root=/datasets/pg19 --set "
      "training.steps=10k");
  struct Arguments {
    ConfigArguments config;
    Trainer::Options options;
  };
  auto arguments = std::make_shared<Arguments>();
  add_config_arguments(*command, arguments->config);
  command->add_flag(
      "--allow-config-change", arguments->options.allow_config_change,
      "continue although optimiser, schedule or precision differ from the checkpoint's");
  command->add_flag("--allow-data-change", arguments->options.allow_data_change,
                    "continue although the training files are not those of the checkpoint");
  command->callback([arguments] {
    StopSignal::install();
    const ResolvedConfig resolved = arguments->config.resolve();
    Trainer trainer(resolved, arguments->options);
    set_exit_code(trainer.run());
  });
}

}  // namespace polysketch::commands
