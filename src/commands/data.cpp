// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "data/corpus.hpp"
#include "data/order_mixing.hpp"
#include "data/sample_order.hpp"
#include "data/token_cache.hpp"
#include "data/token_cache_prepare.hpp"
#include "data/tokenizer.hpp"
#include "reporting/number_text.hpp"
#include "reporting/progress_bar.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  ConfigArguments config;
  std::string split = "all";
  int64_t files = 0;
  bool json = false, raw = false;
};

const std::vector<std::pair<std::string, Split>> kSplits = {
    {"train", Split::train}, {"validation", Split::validation}, {"test", Split::test}};

/// One split with its files.
struct OpenSplit {
  std::string name;
  Split split = Split::train;
  std::vector<CorpusFile> files;
};

/// The splits that were asked for; of `all` those that have files.
std::vector<OpenSplit> open_splits(const Corpus& corpus, const std::string& asked) {
  const std::vector<Split> there = asked == "all" ? corpus.splits() : std::vector<Split>();
  if (asked == "all" && there.empty()) (void)corpus.files(Split::train);  // says what is missing
  std::vector<OpenSplit> open;
  for (const auto& [name, split] : kSplits) {
    if (asked != "all" && asked != name) continue;
    if (asked == "all" && std::find(there.begin(), there.end(), split) == there.end()) {
      log_info(fmt::format("this corpus has no {} split", name));
      continue;
    }
    open.push_back({name, split, corpus.files(split)});
  }
  return open;
}

/// Tokenises what is missing, under a progress bar. Gives the seconds it took.
double prepare_split(TokenCache& cache, const std::string& name, const DataConfig& config,
                     int64_t files) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const int64_t threads =
      config.threads > 0 ? config.threads
                         : static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  ProgressBar bar("tokenising " + name, files > 0 ? std::min(files, cache.files()) : cache.files(),
                  "files");
  prepare_tokens(cache, files, threads, [&](const PrepareProgress& progress) {
    const double mb = static_cast<double>(progress.made.bytes) / 1e6;
    bar.update(progress.files, fmt::format("{} tokens, {:.1f} MB/s",
                                           format_count(progress.made.tokens), mb / seconds()));
  });
  return seconds();
}

/// A share that may have nothing below the line.
ordered_json share(int64_t part, int64_t whole) {
  return whole > 0 ? ordered_json(static_cast<double>(part) / static_cast<double>(whole))
                   : ordered_json(nullptr);
}

std::string percent(int64_t part, int64_t whole) {
  return whole > 0 ? fmt::format("{:.3g} %",
                                 100.0 * static_cast<double>(part) / static_cast<double>(whole))
                   : "-";
}

std::string quotient(int64_t part, int64_t whole) {
  return whole > 0 ? short_number(static_cast<double>(part) / static_cast<double>(whole)) : "-";
}

/// How well the first windows of a run stand for the training split.
OrderMixing first_windows(const std::shared_ptr<TokenCache>& cache, const Config& config,
                          const SplitInspection& found) {
  return measure_mixing(cache, config.data, static_cast<uint64_t>(config.run.seed), kNewestOrder,
                        found.histogram, {{0, 1000}})
      .front();
}

void inspect(const Arguments& arguments) {
  StopSignal::install_to_end();
  const Config all = arguments.config.resolve().config;
  const DataConfig& config = all.data;
  const Tokenizer tokenizer(config.tokenizer.path);
  const Corpus corpus = Corpus::open(config);
  ordered_json output{{"corpus", corpus.name()},
                      {"root", config.root},
                      {"tokenizer", config.tokenizer.path},
                      {"splits", ordered_json::object()}};
  for (const auto& open : open_splits(corpus, arguments.split)) {
    const auto cache = TokenCache::open(config, corpus, open.split, tokenizer);
    prepare_split(*cache, open.name, config, arguments.files);
    const SplitInspection found = inspect_tokens(*cache, arguments.files, tokenizer);
    const Corpus::SplitSummary summary = corpus.summary(open.split);
    const SegmentCounts& c = found.counts;
    const int64_t published = corpus.published_words(open.split),
                  windows = windows_within(c.tokens, config.context);
    output["splits"][open.name] = {
        {"format", summary.format},
        {"patterns", summary.patterns},
        {"left_out", corpus.left_out(open.split)},
        {"files", found.files},
        {"file_bytes", found.file_bytes},
        {"documents", c.documents},
        {"bytes", c.bytes},
        {"words", c.words},
        {"published_words", published > 0 ? ordered_json(published) : ordered_json(nullptr)},
        {"tokens", c.tokens},
        {"windows", windows},
        {"tokens_per_word", share(c.tokens, c.words)},
        {"tokens_per_document", share(c.tokens, c.documents)},
        {"bytes_per_token", share(c.bytes, c.tokens)},
        {"longest_document_tokens", found.longest},
        {"unknown", c.unknown},
        {"unknown_rate", share(c.unknown, c.tokens)},
        {"byte_pieces", found.byte_pieces},
        {"byte_piece_rate", share(found.byte_pieces, c.tokens)},
        {"duplicates", found.duplicates},
        {"duplicate_rate", share(found.duplicates, c.documents)},
        {"skipped_records", c.skipped}};
    std::optional<OrderMixing> order;
    if (open.split == Split::train && arguments.files == 0 && windows > 0) {
      order = first_windows(cache, all, found);
      output["splits"][open.name]["order"] = {{"version", kNewestOrder},
                                              {"windows", order->windows.count},
                                              {"divergence", order->ordered},
                                              {"random_divergence", order->random}};
    }
    if (arguments.json) continue;
    print(fmt::format("{}\n", open.name) +
          fmt::format("  files       {} ({}) of {}\n", found.files,
                      format_bytes(static_cast<int64_t>(found.file_bytes)), summary.patterns) +
          fmt::format(
              "  documents   {} ({} duplicates, {}); records without a document (empty or bad): "
              "{}\n",
              c.documents, found.duplicates, percent(found.duplicates, c.documents), c.skipped) +
          fmt::format("  text        {} bytes, {} words{}\n", c.bytes, c.words,
                      published > 0 ? fmt::format(" ({} of the {} published)",
                                                  percent(c.words, published), published)
                                    : "") +
          fmt::format(
              "  tokens      {}: {} a word, {} a document (longest {}), {} bytes each; {} windows "
              "of {}\n",
              c.tokens, quotient(c.tokens, c.words), quotient(c.tokens, c.documents), found.longest,
              quotient(c.bytes, c.tokens), windows, config.context) +
          fmt::format("  unknown     {} ({}), byte pieces {} ({})\n", c.unknown,
                      percent(c.unknown, c.tokens), found.byte_pieces,
                      percent(found.byte_pieces, c.tokens)));
    if (order) {
      print(fmt::format(
          "  order       the first {} windows differ from the whole split by {:.4f} nats, as many "
          "random ones by {:.4f}\n",
          order->windows.count, order->ordered, order->random));
    }
  }
  const BadRecords::Counts bad = corpus.bad_records().counts();
  output["bad_records"] = {{"bad", bad.bad},
                           {"empty", bad.empty},
                           {"split", bad.split},
                           {"by_cause", bad.by_cause},
                           {"empty_by_cause", bad.empty_by_cause}};
  if (arguments.json) {
    print_json(output);
  } else if (bad.bad > 0 || bad.split > 0) {
    print(fmt::format("bad records of this reading: {}; documents cut for their length: {}\n",
                      bad.bad > 0 ? corpus.bad_records().summary() : "none", bad.split));
  }
  if (!arguments.json && bad.empty > 0)
    print(fmt::format("empty records of this reading: {}\n", corpus.bad_records().empty_summary()));
}

void prepare(const Arguments& arguments) {
  StopSignal::install();
  const DataConfig config = arguments.config.resolve().config.data;
  const Tokenizer tokenizer(config.tokenizer.path);
  const Corpus corpus = Corpus::open(config);
  ordered_json output{{"splits", ordered_json::object()}};
  for (const auto& open : open_splits(corpus, arguments.split)) {
    const auto cache = TokenCache::open(config, corpus, open.split, tokenizer);
    const double seconds = prepare_split(*cache, open.name, config, arguments.files);
    SegmentCounts total;
    int64_t files = 0;
    for (; files < cache->files() && (arguments.files == 0 || files < arguments.files); ++files) {
      if (const auto file = cache->file_summary(files)) total += file->counts;
    }
    const TokenCache::Work made = cache->work();
    const double mb = static_cast<double>(made.bytes) / 1e6 / seconds;
    output["cache"] = cache->folder().string();
    output["splits"][open.name] = {
        {"files", files},
        {"tokens", total.tokens},
        {"bytes", total.bytes},
        {"tokenised_tokens", made.tokens},
        {"tokenised_bytes", made.bytes},
        {"seconds", seconds},
        {"megabytes_per_second", mb},
        {"tokens_per_second", static_cast<double>(made.tokens) / seconds}};
    if (arguments.json) continue;
    const std::string work =
        made.segments == 0
            ? "all in the cache already"
            : fmt::format(
                  "tokenised {} tokens in {:.1f} s: {:.2f} MB/s, {} tokens/s", made.tokens, seconds,
                  mb,
                  format_count(static_cast<int64_t>(static_cast<double>(made.tokens) / seconds)));
    print(fmt::format("{}: {} tokens of {} in {} files; {}\n", open.name, total.tokens,
                      format_bytes(total.bytes), files, work));
  }
  if (arguments.json) {
    print_json(output);
  } else {
    print("cache: " + output["cache"].get<std::string>() + "\n");
  }
  if (corpus.bad_records().counts().bad > 0) log_warning(corpus.bad_records().summary());
}

/// Whether a raw file is still what its remembered hash says; nothing for files of an object store.
std::optional<bool> raw_file_holds(const Corpus& corpus, const CorpusFile& file) {
  if (file.path.find("://") != std::string::npos) return std::nullopt;
  return sha256_file(file.path) == corpus.content_hash(file);
}

void verify(const Arguments& arguments) {
  StopSignal::install();
  const DataConfig config = arguments.config.resolve().config.data;
  const Tokenizer tokenizer(config.tokenizer.path);
  const Corpus corpus = Corpus::open(config);
  ordered_json output{{"splits", ordered_json::object()}};
  int64_t segments = 0, damaged = 0, changed = 0;
  for (const auto& open : open_splits(corpus, arguments.split)) {
    const auto cache = TokenCache::open(config, corpus, open.split, tokenizer);
    const int64_t files =
        arguments.files > 0 ? std::min(arguments.files, cache->files()) : cache->files();
    int64_t complete = 0, split_segments = 0, bytes = 0, raw_checked = 0, raw_unchecked = 0;
    auto faults = ordered_json::array();
    ProgressBar bar("verifying " + open.name, files, "files");
    for (int64_t i = 0; i < files; ++i) {
      if (StopSignal::requested())
        throw UserError(ExitCode::stopped,
                        fmt::format("stopped on request ({}): start the same command again",
                                    signal_name(StopSignal::number())));
      const CorpusFile& file = open.files.at(static_cast<size_t>(i));
      if (arguments.raw) {
        const auto holds = raw_file_holds(corpus, file);
        holds ? ++raw_checked : ++raw_unchecked;
        if (holds == false) {
          ++changed;
          faults.push_back(file.path + ": content differs from its remembered hash");
        }
      }
      const TokenCache::Verification found = cache->verify(i);
      complete += found.complete;
      split_segments += found.segments;
      bytes += found.bytes;
      damaged += static_cast<int64_t>(found.damaged.size());
      for (const auto& fault : found.damaged) faults.push_back(fault);
      bar.update(i + 1, format_bytes(bytes));
    }
    segments += split_segments;
    output["splits"][open.name] = {{"files", files},
                                   {"complete_files", complete},
                                   {"segments", split_segments},
                                   {"bytes", bytes},
                                   {"raw_files_checked", raw_checked},
                                   {"raw_files_not_checkable", raw_unchecked},
                                   {"faults", faults}};
    if (arguments.json) continue;
    std::string line =
        fmt::format("{}: {} of {} files wholly in the cache, {} segments, {} checked", open.name,
                    complete, files, split_segments, format_bytes(bytes));
    if (arguments.raw) line += fmt::format("; {} raw files hashed", raw_checked);
    if (raw_unchecked > 0)
      line +=
          fmt::format(", {} in an object store not (the store vouches for them)", raw_unchecked);
    line += "\n";
    for (const auto& fault : faults) line += "  " + fault.get<std::string>() + "\n";
    print(line);
  }
  if (arguments.json) print_json(output);
  if (changed > 0) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format(
            "{} raw files are not what they were when they were hashed: restore them, or remove {}",
            changed, (token_cache_folder(config) / "file-hashes").string()));
  }
  if (damaged > 0) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{} faults in {} segments of the token cache: `data prepare` makes "
                                "the damaged ones again, so does training",
                                damaged, segments));
  }
}

CLI::App* add_command(CLI::App& parent, const char* name, const char* help,
                      void (*run)(const Arguments&)) {
  CLI::App* command = parent.add_subcommand(name, help);
  auto arguments = std::make_shared<Arguments>();
  add_config_arguments(*command, arguments->config);
  command->add_option("--split", arguments->split, "which split")
      ->check(CLI::IsMember({"all", "train", "validation", "test"}))
      ->capture_default_str();
  add_count(*command, "--files", arguments->files, 0, int64_t{1} << 40,
            "only the first N files of a split; 0: all");
  command->add_flag("--json", arguments->json, "print one JSON object");
  if (run == verify)
    command->add_flag("--raw", arguments->raw,
                      "also hash the raw files and compare with what was remembered");
  command->callback([arguments, run] { run(*arguments); });
  return command;
}

}  // namespace

void add_data(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "What a corpus holds; its token cache");
  data->require_subcommand(1);
  add_command(*data, "inspect",
              "Count files, documents, bytes, words, tokens, unknown pieces and duplicates "
              "(tokenises what is missing)",
              inspect);
  add_command(*data, "prepare", "Tokenise ahead of training, on all cores, into the cache",
              prepare);
  add_command(*data, "verify", "Check every segment of the token cache by its CRC", verify);
}

}  // namespace polysketch::commands
