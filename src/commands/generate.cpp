// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "evaluation/generator.hpp"
#include "support/error.hpp"
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
  StopSignal::install();
  LoadedModel loaded = load_model(arguments.model);
  SamplingOptions options = arguments.sampling;
  options.context = loaded.config.data.context;
  if (!arguments.keep_going) options.stop = loaded.tokenizer->eos();
  std::string prompt = arguments.prompt;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
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
      if (arguments.samples > 1) std::cout << fmt::format("--- seed {}\n", mine.seed);
      std::cout << text << "\n" << std::flush;
    }
  }
  if (arguments.json)
    std::cout << results.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
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
  command->add_option("--tokens", sampling.tokens, "most tokens to add")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--temperature", sampling.temperature, "0: always the most probable token")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command
      ->add_option("--top-k", sampling.top_k, "draw from the k most probable tokens only; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--top-p", sampling.top_p,
                   "draw from the smallest set with this probability only")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "the same seed gives the same text")
      ->capture_default_str();
  command->add_option("--samples", arguments->samples, "texts, with seeds counted up")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_flag("--keep-going", arguments->keep_going, "go on past the end of a document");
  command->add_flag("--json", arguments->json, "print a JSON array");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace polysketch::commands
