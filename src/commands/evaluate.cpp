// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <utility>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/evaluation_log.hpp"
#include "data/corpus.hpp"
#include "distributed/world.hpp"
#include "evaluation/perplexity.hpp"
#include "model/device.hpp"
#include "model/memory.hpp"
#include "reporting/progress_bar.hpp"
#include "support/exit.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  ModelArguments model;
  std::string split = "test";
  std::string context, stride, tokens;
  bool json = false;
  bool no_record = false;
};

int64_t count_argument(const char* option, const std::string& text, int64_t fallback) {
  if (text.empty() || text == "all") return fallback;
  const auto value = parse_count(text);
  if (!value || *value < 1)
    throw UserError(ExitCode::usage,
                    fmt::format("{}: got '{}', want a whole number of at least 1, like 4096 or 4k",
                                option, text));
  return *value;
}

void print(const Perplexity& p, const Config& config, const PerplexityOptions& options,
           const Tokenizer& tokenizer, const Arguments& arguments,
           const CheckpointStore::Loaded& checkpoint) {
  const int64_t stride = options.stride == 0 ? options.context : options.stride;
  const bool words_valid = p.complete && tokenizer.lossless();
  if (arguments.json) {
    nlohmann::ordered_json json{
        {"split", arguments.split},
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
    std::cout << json.dump(2) << "\n";
    return;
  }
  std::cout << fmt::format("{} {} of {} (step {})\n", config.data.corpus, arguments.split,
                           checkpoint.directory.string(), checkpoint.step);
  std::cout << fmt::format("  nats/token       {:.5f}\n  perplexity       {:.4f}\n",
                           p.nats_per_token(), p.per_token());
  if (p.complete) {
    const char* mark =
        words_valid ? "" : "   (the tokenizer does not keep all of the text: not comparable)";
    std::cout << fmt::format("  bits/byte        {:.5f}{}\n  perplexity/word  {:.4f}{}\n",
                             p.bits_per_byte(), mark, p.per_word(), mark);
  }
  std::cout << fmt::format(
      "  {} tokens scored of {}, {} words, {} bytes, {} documents, {} unknown; window {}, stride "
      "{}, {}; tokenizer {}; {:.1f} s\n",
      p.counts.scored, p.counts.tokens, p.words, p.counts.bytes, p.counts.documents,
      p.counts.unknown, options.context, stride,
      config.data.mask_documents ? "documents masked" : "packed", tokenizer.sha256().substr(0, 12),
      p.seconds);
}

void keep(const Perplexity& p, const PerplexityOptions& options, const Arguments& arguments,
          const LoadedModel& loaded) {
  const DataConfig& data = loaded.config.data;
  nlohmann::ordered_json measured{{"corpus", data.corpus}, {"split", arguments.split}};
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

void run_perplexity(const Arguments& arguments) {
  StopSignal::install();
  // Under a launcher the processes share the windows among themselves; which of them is which is
  // known without the run.
  ModelArguments model = arguments.model;
  const auto world = join_launched_world(DistributedConfig{}, model.device, 0);
  if (world->device().is_cuda()) model.device = fmt::format("cuda:{}", world->device().index());
  PerplexityOptions options;
  options.split = parse_split(arguments.split);
  LoadedModel loaded;
  try {
    loaded = load_model(model, [&](const Config& config, const at::Device&) {
      options.context = count_argument("--context", arguments.context, config.data.context);
      require_evaluation_memory(config, options.context, options.rows(), world->available_memory());
    });
  } catch (const UserError& error) {
    world->announce_end(error.code(), error.what());
    throw;
  }
  world->require_alike({{"the checkpoint", checkpoint_identity(loaded.checkpoint)}});
  const Config& config = loaded.config;
  options.stride = count_argument("--stride", arguments.stride, 0);
  options.max_tokens = count_argument("--tokens", arguments.tokens, 0);
  if (options.stride > options.context)
    throw UserError(ExitCode::usage,
                    "--stride: must not be larger than the window, or tokens would be skipped");
  options.stop = [] { return StopSignal::requested(); };
  options.collectives = &world->collectives();
  std::optional<ProgressBar> bar;
  if (world->leads()) {
    bar.emplace("perplexity", options.max_tokens, "tokens");
    options.progress = [&](int64_t tokens) { bar->update(tokens); };
  }
  const Corpus corpus = Corpus::open(config.data);
  const auto measured =
      measure_perplexity(*loaded.model, config.data, corpus, *loaded.tokenizer, options);
  if (!measured) {
    set_exit_code(ExitCode::stopped);
    return;
  }
  if (!world->leads()) return;
  bar.reset();
  if (!arguments.no_record) keep(*measured, options, arguments, loaded);
  print(*measured, config, options, *loaded.tokenizer, arguments, loaded.checkpoint);
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
      "token but the very first is predicted once; the last window is padded and masked. --stride "
      "smaller than N gives every\n"
      "token at least N - stride tokens of context (sliding windows).\n\n"
      "  polysketch evaluate perplexity runs/demo --split test\n"
      "  polysketch evaluate perplexity runs/demo/checkpoints/step-00001000 --stride 256 --json");
  auto arguments = std::make_shared<Arguments>();
  add_model_arguments(*perplexity, arguments->model);
  perplexity->add_option("--split", arguments->split, "train, validation or test")
      ->capture_default_str();
  perplexity
      ->add_option("--context", arguments->context, "window N; default: the run's data.context")
      ->type_name("N");
  perplexity->add_option("--stride", arguments->stride, "targets per window; default: N")
      ->type_name("N");
  perplexity->add_option("--tokens", arguments->tokens, "score only the first so many tokens")
      ->type_name("N");
  perplexity->add_flag("--json", arguments->json, "print one JSON object");
  perplexity->add_flag("--no-record", arguments->no_record,
                       "do not keep the result in the run's evaluations.jsonl");
  perplexity->callback([arguments] { run_perplexity(*arguments); });
}

}  // namespace polysketch::commands
