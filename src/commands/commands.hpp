// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace CLI {
class App;
}

namespace polysketch::commands {

// Each adds one subcommand to the program: its options, its help, and a callback that runs it.
// Callbacks throw UserError; main() turns it into a line and an exit code. One file a subcommand,
// commands/<name>.cpp.

void add_train(CLI::App& app);
void add_evaluate(CLI::App& app);
void add_generate(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_data(CLI::App& app);
void add_plan(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_attention(CLI::App& bench);    ///< `bench attention` and `bench crossover`
void add_bench_distributed(CLI::App& bench);  ///< `bench collectives` and `bench scaling`
void add_config(CLI::App& app);
void add_checkpoint(CLI::App& app);
void add_report(CLI::App& app);
void add_launch(CLI::App& app);

}  // namespace polysketch::commands
