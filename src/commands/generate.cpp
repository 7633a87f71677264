// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "evaluation/generator.hpp"
#include "support/error.hpp"
#include "support/exit.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/text.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ModelArguments model;
  std::string prompt;
  int64_t samples = 1;
  SamplingOptions sampling;
  bool keep_going = false;
  bool json = false;
};

void run(const Arguments& arguments) {
  // Read first: from here on a signal waits for the next token.
  const std::string prompt = arguments.prompt == "-" ? read_standard_input() : arguments.prompt;
  StopSignal::install();
  LoadedModel loaded = load_model(arguments.model);
  SamplingOptions options = arguments.sampling;
  options.context = loaded.config.data.context;
  if (!arguments.keep_going) options.stop = loaded.tokenizer->eos();
  if (const auto at = invalid_utf8_at(prompt)) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("--prompt: is not UTF-8 from byte {} on: give the text as UTF-8", *at));
  }
  // as at the beginning of a document in training
  std::vector<int32_t> start{loaded.tokenizer->eos()};
  loaded.tokenizer->encode(prompt, start);
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < arguments.samples && !StopSignal::requested(); ++i) {
    SamplingOptions mine = options;
    mine.seed = options.seed + static_cast<uint64_t>(i);
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<int32_t> added =
        generate(*loaded.model, loaded.tokenizer->vocabulary(), start, mine,
                 [](int32_t) { return !StopSignal::requested(); });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::vector<int32_t> whole(start.begin() + 1, start.end());
    whole.insert(whole.end(), added.begin(), added.end());
    const std::string text = loaded.tokenizer->decode(whole);
    if (arguments.json) {
      results.push_back({{"seed", mine.seed},
                         {"text", text},
                         {"tokens", added.size()},
                         {"tokens_per_second", static_cast<double>(added.size()) / seconds}});
    } else {
      print((arguments.samples > 1 ? fmt::format("--- seed {}\n", mine.seed) : "") + text + "\n");
    }
  }
  if (arguments.json) print_json(results);
  if (!StopSignal::requested()) return;
  log_info("stopped by " + signal_name(StopSignal::number()) + ": the text ends where it was");
  set_exit_code(ExitCode::stopped);
}

}  // namespace

void add_generate(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Continue a text with a trained model");
  command->footer(
      "  polysketch generate runs/demo --prompt 'And God said' --tokens 100\n"
      "  polysketch generate runs/demo --temperature 0.8 --top-p 0.95 --samples 3 --seed 7");
  auto arguments = std::make_shared<Arguments>();
  add_model_arguments(*command, arguments->model);
  SamplingOptions& sampling = arguments->sampling;
  command->add_option(
      "--prompt", arguments->prompt,
      "text to continue; - reads it from standard input; empty: the start of a document");
  add_count(*command, "--tokens", sampling.tokens, 1, int64_t{1} << 40, "most tokens to add");
  add_real(*command, "--temperature", sampling.temperature, 0, 100,
           "0: always the most probable token");
  add_count(*command, "--top-k", sampling.top_k, 0, int64_t{1} << 40,
            "draw from the k most probable tokens only; 0: all");
  add_real(*command, "--top-p", sampling.top_p, 0, 1,
           "draw from the smallest set with this probability only");
  add_count(*command, "--seed", sampling.seed, 0, kAnyCount, "the same seed gives the same text");
  add_count(*command, "--samples", arguments->samples, 1, int64_t{1} << 40,
            "texts, with seeds counted up");
  command->add_flag("--keep-going", arguments->keep_going, "go on past the end of a document");
  command->add_flag("--json", arguments->json, "print a JSON array");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace polysketch::commands
