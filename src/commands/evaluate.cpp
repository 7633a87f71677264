// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/evaluation_log.hpp"
#include "commands/number_options.hpp"
#include "data/corpus.hpp"
#include "data/corpus_description.hpp"
#include "device/device.hpp"
#include "distributed/world.hpp"
#include "evaluation/perplexity.hpp"
#include "model/memory.hpp"
#include "reporting/number_text.hpp"
#include "reporting/progress_bar.hpp"
#include "support/exit.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/system_error.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ModelArguments model;
  std::string split;  ///< empty: test, or validation where there is no test split
  int64_t context = 0, stride = 0, tokens = 0;  ///< 0: the run's, the window, the whole split
  bool json = false;
  bool no_record = false;
};

/// Perplexities are compared by four digits at most.
std::string four_digits(double value) {
  return value < 9999.5 ? fmt::format("{:.4g}", value) : short_number(value);
}

void print_figures(const Perplexity& p, const Config& config, const PerplexityOptions& options,
                   const Tokenizer& tokenizer, const Arguments& arguments,
                   const CheckpointStore::Loaded& checkpoint) {
  const int64_t stride = options.stride == 0 ? options.context : options.stride;
  const bool words_valid = p.complete && tokenizer.lossless();
  if (arguments.json) {
    nlohmann::ordered_json json{
        {"split", split_name(options.split)},
        {"corpus", config.data.corpus},
        {"checkpoint", checkpoint.directory.string()},
        {"step", checkpoint.step},
        {"nats", p.nats},
        {"nats_per_token", p.nats_per_token()},
        {"perplexity", p.per_token()},
        {"bits_per_byte", nullptr},
        {"perplexity_per_word", nullptr},
        {"tokens", p.counts.tokens},
        {"tokens_scored", p.counts.scored},
        {"words", p.words},
        {"bytes", p.counts.bytes},
        {"documents", p.counts.documents},
        {"unknown_tokens", p.counts.unknown},
        {"complete", p.complete},
        {"lossless_tokenizer", tokenizer.lossless()},
        {"protocol", config.data.mask_documents ? "documents masked" : "packed"},
        {"window", options.context},
        {"stride", stride},
        {"tokenizer_sha256", tokenizer.sha256()},
        {"seconds", p.seconds}};
    if (p.complete) {
      json["bits_per_byte"] = p.bits_per_byte();
      json["perplexity_per_word"] = p.per_word();
    }
    return print_json(json);
  }
  std::string text =
      fmt::format("{} {} of {} (step {})\n", config.data.corpus, split_name(options.split),
                  checkpoint.directory.string(), checkpoint.step);
  text += fmt::format("  nats/token       {:.4f}\n  perplexity       {}\n", p.nats_per_token(),
                      four_digits(p.per_token()));
  if (p.complete) {
    const char* mark =
        words_valid ? "" : "   (the tokenizer does not keep all of the text: not comparable)";
    text += fmt::format("  bits/byte        {:.4f}{}\n  perplexity/word  {}{}\n", p.bits_per_byte(),
                        mark, four_digits(p.per_word()), mark);
  }
  print(text + fmt::format("  {} tokens scored of {}, {} words, {} bytes, {} documents, {} "
                           "unknown; window {}, stride "
                           "{}, {}; tokenizer {}; {:.1f} s\n",
                           p.counts.scored, p.counts.tokens, p.words, p.counts.bytes,
                           p.counts.documents, p.counts.unknown, options.context, stride,
                           config.data.mask_documents ? "documents masked" : "packed",
                           tokenizer.sha256().substr(0, 12), p.seconds));
}

void keep(const Perplexity& p, const PerplexityOptions& options, const LoadedModel& loaded) {
  const DataConfig& data = loaded.config.data;
  nlohmann::ordered_json measured{{"corpus", data.corpus}, {"split", split_name(options.split)}};
  if (p.complete) {
    measured["bytes"] = p.counts.bytes;  // the same text, wherever it lies
    measured["documents"] = p.counts.documents;
  } else {
    measured["first_tokens"] = options.max_tokens;
  }
  measured["window"] = options.context;
  measured["stride"] = options.stride == 0 ? options.context : options.stride;
  if (data.mask_documents) measured["protocol"] = "documents masked";
  nlohmann::ordered_json figures{{"perplexity", p.per_token()},
                                 {"nats_per_token", p.nats_per_token()}};
  if (p.complete && loaded.tokenizer->lossless()) {
    figures["bits_per_byte"] = p.bits_per_byte();
    figures["perplexity_per_word"] = p.per_word();
  }
  figures["tokens_scored"] = p.counts.scored;
  keep_result(loaded, "perplexity", std::move(measured), std::move(figures));
}

/// The test split, or what comes nearest to it. A corpus with neither test nor validation has no
/// split to measure on: what files() then says of the test split names those that there are.
Split split_to_measure(const Corpus& corpus) {
  const std::vector<Split> there = corpus.splits();
  const auto has = [&](Split split) {
    return std::find(there.begin(), there.end(), split) != there.end();
  };
  if (has(Split::test) || !has(Split::validation)) return Split::test;
  log_info("this corpus has no test split: measuring the validation split");
  return Split::validation;
}

void measure(const Arguments& arguments, const ModelArguments& model, World& world) {
  PerplexityOptions options;
  if (!arguments.split.empty()) options.split = parse_split(arguments.split);
  options.stride = arguments.stride;
  options.max_tokens = arguments.tokens;
  options.stop = [] { return StopSignal::requested(); };
  options.collectives = &world.collectives();
  std::optional<Corpus> corpus;
  const LoadedModel loaded = load_model(model, [&](const LoadedModel& found, const at::Device&) {
    const Config& config = found.config;
    options.context = arguments.context > 0 ? arguments.context : config.data.context;
    if (options.stride > options.context)
      throw UserError(ExitCode::usage,
                      "--stride: must not be larger than the window, or tokens would be skipped");
    corpus = Corpus::open(config.data);
    if (arguments.split.empty()) options.split = split_to_measure(*corpus);
    const ForwardSize size = largest_forward(config.data, *corpus, *found.tokenizer, options);
    require_evaluation_memory(config, size.length, size.rows, world.available_memory());
  });
  world.require_alike({{"the checkpoint", checkpoint_identity(loaded.checkpoint)}});
  const Config& config = loaded.config;
  std::optional<ProgressBar> bar;
  if (world.leads()) {
    bar.emplace("perplexity", options.max_tokens, "tokens");
    options.progress = [&](int64_t tokens) { bar->update(tokens); };
  }
  const auto measured =
      measure_perplexity(*loaded.model, config.data, *corpus, *loaded.tokenizer, options);
  if (!measured) {
    if (world.leads())
      log_info(
          "stopped" +
          (StopSignal::requested() ? " by " + signal_name(StopSignal::number()) : std::string()) +
          " before the split was scored: start the same command again");
    set_exit_code(ExitCode::stopped);
    return;
  }
  if (!world.leads()) return;
  bar.reset();
  if (!arguments.no_record) keep(*measured, options, loaded);
  print_figures(*measured, config, options, *loaded.tokenizer, arguments, loaded.checkpoint);
}

void run_perplexity(const Arguments& arguments) {
  StopSignal::install();
  // Under a launcher the processes share the windows among themselves; which of them is which is
  // known without the run.
  ModelArguments model = arguments.model;
  const auto world = join_launched_world(DistributedConfig{}, model.device, 0);
  if (world->device().is_cuda()) model.device = fmt::format("cuda:{}", world->device().index());
  try {
    measure(arguments, model, *world);
  } catch (const std::exception& error) {
    const ErrorReport found = report_of(error);
    world->announce_end(found.code, found.text);
    throw;
  }
}

}  // namespace

void add_evaluate(CLI::App& app) {
  CLI::App* command = app.add_subcommand("evaluate", "Measure a trained model");
  command->require_subcommand(1);
  CLI::App* perplexity =
      command->add_subcommand("perplexity", "Perplexity of a whole split: every token once");
  perplexity->footer(
      "All documents of the split are joined with one end-of-document token each and cut into "
      "windows of N + 1 tokens with stride N, so "
      "every\n"
      "token but the very first is predicted once; the last window is shorter. --stride "
      "smaller than N gives every\n"
      "token at least N - stride tokens of context (sliding windows).\n\n"
      "  polysketch evaluate perplexity runs/demo --split test\n"
      "  polysketch evaluate perplexity runs/demo/checkpoints/step-00001000 --stride 256 --json");
  auto arguments = std::make_shared<Arguments>();
  add_model_arguments(*perplexity, arguments->model);
  perplexity->add_option("--split", arguments->split,
                         "train, validation or test; default: test, or validation where the corpus "
                         "has no test split");
  add_count(*perplexity, "--context", arguments->context, 1, int64_t{1} << 40,
            "window N; default: the run's data.context");
  add_count(*perplexity, "--stride", arguments->stride, 1, int64_t{1} << 40,
            "targets per window; default: N");
  add_checked(*perplexity, "--tokens", "N", "all", "score only the first so many tokens",
              [arguments](const std::string& text) {
                arguments->tokens = text == "all" ? 0 : checked_count("--tokens", text, 1);
              });
  perplexity->add_flag("--json", arguments->json, "print one JSON object");
  perplexity->add_flag("--no-record", arguments->no_record,
                       "do not keep the result in the run's evaluations.jsonl");
  perplexity->callback([arguments] { run_perplexity(*arguments); });
}

}  // namespace polysketch::commands
