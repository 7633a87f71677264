// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "data/cleaning.hpp"
#include "data/corpus.hpp"
#include "data/loose_files.hpp"
#include "data/tokenizer.hpp"
#include "data/tokenizer_training.hpp"
#include "support/build_info.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/output_file.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"
#include "support/text.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::ordered_json;

/// Where the texts of a command come from: files and folders, or a split of a corpus.
struct TextArguments {
  std::vector<std::string> inputs;
  std::string corpus, root, split = "train", cleaning = "none", on_error = "error";

  void add_to(CLI::App& command) {
    command
        .add_option("--input", inputs,
                    "text files (.txt, .jsonl, .json, also .gz) and folders of them")
        ->type_name("PATH");
    command.add_option(
        "--corpus", corpus,
        "instead: a corpus by name (pg19, wiki40b, c4, text, jsonl) or the path of a description");
    command.add_option("--root", root, "folder, s3:// or gs:// prefix of that corpus");
    command.add_option("--split", split, "its split: train, validation or test")
        ->capture_default_str();
    command
        .add_option("--cleaning", cleaning,
                    "Wiki-40B's markup: none, plain or markers (which become pieces of their own)")
        ->check(CLI::IsMember({"none", "plain", "markers"}))
        ->capture_default_str();
    command
        .add_option("--on-error", on_error,
                    "a bad record ends the command, or is skipped and counted")
        ->check(CLI::IsMember({"error", "skip"}))
        ->capture_default_str();
  }
  bool given() const { return !inputs.empty() || !corpus.empty(); }
  Cleaning cleaning_mode() const {
    return cleaning == "plain"     ? Cleaning::plain
           : cleaning == "markers" ? Cleaning::markers
                                   : Cleaning::none;
  }
};

struct ReadText {
  ordered_json files = ordered_json::array();
  BadRecords::Counts counts;
};

/// Hands every document to `document`, after `file` for each file in a fixed order. `outputs`:
/// files that the command will write.
ReadText each_document(const TextArguments& arguments, const std::vector<std::string>& outputs,
                       const std::function<void(uint64_t)>& file,
                       const std::function<void(const std::string&)>& document) {
  if (arguments.inputs.empty() == arguments.corpus.empty())
    throw UserError(ExitCode::usage, "give either --input or --corpus with --root");
  DataConfig config;
  config.corpus = arguments.corpus;
  config.root = arguments.root;
  config.cleaning = arguments.cleaning_mode();
  config.on_error = arguments.on_error == "skip" ? OnError::skip : OnError::error;
  if (arguments.corpus.empty() && config.cleaning != Cleaning::none) {
    throw UserError(
        ExitCode::usage,
        "--cleaning is for --corpus wiki40b; files given by --input are taken as they are");
  }
  std::optional<Corpus> corpus;
  std::shared_ptr<BadRecords> bad;
  std::vector<CorpusFile> files;
  if (arguments.corpus.empty()) {
    bad = std::make_shared<BadRecords>(config.on_error, config.max_bad_fraction,
                                       config.max_bad_in_a_row);
    LooseFiles found = find_loose_files(arguments.inputs, outputs);
    files = std::move(found.files);
    if (!found.left_out.empty())
      log_info(fmt::format("not read: {}", fmt::join(found.left_out, "; ")));
  } else {
    corpus = Corpus::open(config);
    files = corpus->files(parse_split(arguments.split));
  }
  ReadText read;
  auto told = std::chrono::steady_clock::now();
  for (uint64_t number = 0; number < files.size(); ++number) {
    file(number);
    const auto reader =
        corpus ? corpus->read(files[number]) : read_loose_file(files[number], config, bad);
    Document text;
    while (reader->next(text)) document(text.text);
    read.files.push_back({{"name", files[number].name}, {"bytes", files[number].bytes}});
    if (std::chrono::steady_clock::now() - told > std::chrono::seconds(20)) {
      told = std::chrono::steady_clock::now();
      log_info(fmt::format("read {} of {} files", number + 1, files.size()));
    }
  }
  const BadRecords& seen = corpus ? corpus->bad_records() : *bad;
  read.counts = seen.counts();
  if (read.counts.bad > 0) log_warning(seen.summary());
  if (read.counts.empty > 0) log_info("empty records: " + seen.empty_summary());
  return read;
}

struct TrainArguments {
  TextArguments text;
  int64_t vocabulary = 32000, sample_bytes = 10'000'000, seed = 1, threads = 4;
  std::string output, recipe = "paper", type;
  double coverage = 0;  ///< 0: the recipe's
  bool byte_fallback = false, no_byte_fallback = false, json = false;
  std::vector<std::string> user_pieces;
};

TokenizerTraining training_settings(const TrainArguments& arguments) {
  TokenizerTraining settings;
  settings.recipe = parse_recipe(arguments.recipe).value();
  settings.vocabulary = arguments.vocabulary;
  if (arguments.type == "unigram") settings.type = TokenizerType::unigram;
  if (arguments.type == "bpe") settings.type = TokenizerType::bpe;
  if (arguments.coverage > 0) settings.coverage = arguments.coverage;
  if (arguments.byte_fallback) settings.byte_fallback = true;
  if (arguments.no_byte_fallback) settings.byte_fallback = false;
  settings.seed = static_cast<uint64_t>(arguments.seed);
  settings.threads = arguments.threads;
  if (arguments.text.cleaning_mode() == Cleaning::markers)
    settings.user_pieces.assign(kWikiMarkers.begin(), kWikiMarkers.end());
  for (const auto& piece : arguments.user_pieces) {
    if (piece.empty() || piece.find_first_of(", \t\n") != std::string::npos) {
      throw UserError(
          ExitCode::usage,
          fmt::format("--user-piece: got '{}', want a text without blanks and commas", piece));
    }
    settings.user_pieces.push_back(piece);
  }
  return settings;
}

void train(const TrainArguments& arguments) {
  StopSignal::install_to_end();
  const TokenizerTraining settings = training_settings(arguments);
  const OutputFile output("--output", arguments.output);
  if (output.is_standard_output() && arguments.json)
    throw UserError(
        ExitCode::usage,
        "--json: prints on standard output, where --output puts the model: give --output "
        "the name of a file");
  std::optional<OutputFile> beside;
  if (output.is_regular()) beside.emplace("--output", arguments.output + ".json");
  LineSample sample(arguments.sample_bytes, settings.seed, keeps_line_ends(settings.recipe));
  const ReadText read = each_document(
      arguments.text, {arguments.output, arguments.output + ".json"},
      [&](uint64_t number) { sample.begin_file(number); },
      [&](const std::string& text) { sample.add(text); });
  const LineSample::Counts counts = sample.counts();
  log_info(fmt::format(
      "sampled {} lines ({}) of {} ({}) in {} documents of {} files{}", counts.sampled_lines,
      format_bytes(counts.sampled_bytes), counts.lines, format_bytes(counts.bytes),
      counts.documents, read.files.size(),
      counts.split_lines > 0
          ? fmt::format("; {} lines were too long for one piece and split", counts.split_lines)
          : ""));
  const std::string model = train_tokenizer(settings, sample.take());
  const Tokenizer tokenizer = Tokenizer::from_bytes(model, output.place());
  ordered_json record = training_record(settings);
  record["sample"] = {{"bytes_limit", arguments.sample_bytes},
                      {"documents", counts.documents},
                      {"lines", counts.lines},
                      {"bytes", counts.bytes},
                      {"split_lines", counts.split_lines},
                      {"sampled_lines", counts.sampled_lines},
                      {"sampled_bytes", counts.sampled_bytes},
                      {"bad_records", read.counts.bad},
                      {"empty_documents", read.counts.empty}};
  record["corpus"] = arguments.text.corpus;
  record["split"] = arguments.text.corpus.empty() ? "" : arguments.text.split;
  record["cleaning"] = arguments.text.cleaning;
  record["files"] = read.files;
  record["vocabulary"] = tokenizer.vocabulary();
  record["lossless"] = tokenizer.lossless();
  record["losses"] = tokenizer.losses();
  record["sha256"] = tokenizer.sha256();
  record["versions"] = build_info();
  output.write(model);
  if (beside) {
    beside->write(json_text(record) + "\n");
  } else {
    log_info(output.place() + ": is no regular file, so no record is written beside it");
  }
  const std::string made = fmt::format(
      "{}: {} pieces, {}, {}, sha256 {}", output.place(), tokenizer.vocabulary(),
      tokenizer_type_name(tokenizer.model().type),
      tokenizer.lossless() ? "lossless" : "not lossless", tokenizer.sha256().substr(0, 16));
  if (!tokenizer.lossless()) {
    log_warning(fmt::format(
        "{}: does not keep {}: the original text cannot be recovered, and bits per byte are not "
        "valid{}",
        output.place(), fmt::join(tokenizer.losses(), "; "),
        settings.recipe == TokenizerRecipe::bpe_bytes
            ? ""
            : fmt::format("; the recipe '{}' is lossless",
                          recipe_name(TokenizerRecipe::bpe_bytes))));
  }
  if (arguments.json) {
    print_json(record);
  } else if (output.is_standard_output()) {
    log_info(made);
  } else {
    print(made + "\n");
  }
}

/// White space and backslashes of a piece, so that pieces on one line can be told apart.
std::string escaped(const std::string& piece) {
  std::string out;
  for (const char c : piece) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (c == ' ')
      out += "\\s";
    else if (c == '\\')
      out += "\\\\";
    else
      out += c;
  }
  return out;
}

std::string unescaped(const std::string& word) {
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] != '\\' || i + 1 == word.size()) {
      out += word[i];
      continue;
    }
    const char c = word[++i];
    out += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 's' ? ' ' : c;
  }
  return out;
}

struct CodeArguments {
  std::string model;
  std::vector<std::string> words;
  bool ids = false, lines = false;

  /// The words of the command line, else standard input.
  std::string text() const {
    if (!words.empty()) return fmt::format("{}", fmt::join(words, " "));
    return read_standard_input();
  }
};

void print_encoded(const Tokenizer& tokenizer, std::string_view text, bool as_ids) {
  if (const auto at = invalid_utf8_at(text))
    throw UserError(ExitCode::bad_data,
                    fmt::format("the text is not UTF-8 (byte {}): convert it first", *at));
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    throw UserError(ExitCode::bad_data,
                    fmt::format("the text holds a NUL character (byte {}): remove it first", at));
  std::string line;
  for (const int32_t id : tokenizer.encode(text)) {
    if (!line.empty()) line += ' ';
    line += as_ids ? std::to_string(id) : escaped(tokenizer.piece(id));
  }
  print(line + "\n");
}

void encode(const CodeArguments& arguments) {
  const Tokenizer tokenizer(arguments.model);
  const std::string text = arguments.text();
  if (!arguments.lines) return print_encoded(tokenizer, text, arguments.ids);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    print_encoded(tokenizer, std::string_view(text).substr(begin, end - begin), arguments.ids);
    begin = end + 1;
  }
}

int32_t parse_id(const std::string& word) {
  int32_t id = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (error != std::errc() || end != word.data() + word.size())
    throw UserError(ExitCode::bad_data, fmt::format("'{}' is not an id: give whole numbers", word));
  return id;
}

void decode(const CodeArguments& arguments) {
  const Tokenizer tokenizer(arguments.model);
  const auto decode_line = [&](const std::string& line) {
    std::vector<int32_t> ids;
    for (size_t begin = line.find_first_not_of(" \t\r\n"); begin != std::string::npos;) {
      const size_t end = std::min(line.find_first_of(" \t\r\n", begin), line.size());
      const std::string word = line.substr(begin, end - begin);
      ids.push_back(arguments.ids ? parse_id(word) : tokenizer.id_of(unescaped(word)));
      if (ids.back() < 0 && !arguments.ids) {
        // What encode prints for an unknown character is the character.
        throw UserError(ExitCode::bad_data,
                        fmt::format("'{}' is not a piece of {}: use --ids in both commands", word,
                                    arguments.model));
      }
      begin = line.find_first_not_of(" \t\r\n", end);
    }
    return tokenizer.decode(ids);
  };
  const std::string text(without_byte_order_mark(arguments.text()));
  if (!arguments.lines) {
    print(decode_line(text));
    return;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    print(decode_line(text.substr(begin, end - begin)) + "\n");
    begin = end + 1;
  }
}

ordered_json describe(const Tokenizer& tokenizer) {
  const ModelSummary& model = tokenizer.model();
  std::vector<std::string> user_pieces;
  for (const auto& piece : model.pieces) {
    if (piece.type == PieceType::user_defined && user_pieces.size() < 100)
      user_pieces.push_back(piece.text);
  }
  return {{"path", tokenizer.path()},
          {"sha256", tokenizer.sha256()},
          {"type", tokenizer_type_name(model.type)},
          {"vocabulary", tokenizer.vocabulary()},
          {"ids",
           {{"unknown", tokenizer.unknown()},
            {"bos", tokenizer.bos()},
            {"eos", tokenizer.has_eos() ? tokenizer.eos() : -1},
            {"pad", tokenizer.pad()}}},
          {"byte_fallback", model.byte_fallback},
          {"user_pieces", user_pieces},
          {"normalizer", model.normalizer},
          {"dummy_prefix", model.dummy_prefix},
          {"remove_extra_whitespaces", model.remove_extra_whitespaces},
          {"lossless", tokenizer.lossless()},
          {"losses", tokenizer.losses()}};
}

ordered_json measure(const Tokenizer& tokenizer, const TextArguments& arguments) {
  int64_t documents = 0, bytes = 0, words = 0, tokens = 0, unknown = 0, byte_pieces = 0;
  std::vector<int32_t> ids;
  each_document(
      arguments, {}, [](uint64_t) {},
      [&](const std::string& text) {
        ids.clear();
        tokenizer.encode(text, ids);
        ++documents;
        bytes += static_cast<int64_t>(text.size());
        words += count_words(text);
        tokens += static_cast<int64_t>(ids.size());
        for (const int32_t id : ids) {
          unknown += id == tokenizer.unknown() ? 1 : 0;
          byte_pieces += tokenizer.is_byte(id) ? 1 : 0;
        }
      });
  const auto ratio = [](int64_t a, int64_t b) {
    return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : 0.0;
  };
  return {{"documents", documents},
          {"bytes", bytes},
          {"words", words},
          {"tokens", tokens},
          {"tokens_per_word", ratio(tokens, words)},
          {"bytes_per_token", ratio(bytes, tokens)},
          {"unknown_rate", ratio(unknown, tokens)},
          {"byte_fallback_rate", ratio(byte_pieces, tokens)}};
}

void inspect(const std::string& model, const TextArguments& text, bool as_json) {
  const Tokenizer tokenizer(model);
  ordered_json result = describe(tokenizer);
  if (text.given()) result["text"] = measure(tokenizer, text);
  if (as_json) return print_json(result);
  const auto line = [](const std::string& key, const ordered_json& value) {
    print(fmt::format("{:<26}{}\n", key,
                      value.is_string()         ? value.get<std::string>()
                      : value.is_number_float() ? fmt::format("{:.4g}", value.get<double>())
                                                : json_text(value, -1)));
  };
  for (const auto& [key, value] : result.items()) {
    if (key == "text" || key == "losses") continue;
    if (key == "lossless" && !tokenizer.lossless()) {
      line(key, fmt::format("false: it does not keep {}", fmt::join(tokenizer.losses(), "; ")));
      continue;
    }
    line(key, value);
  }
  if (!text.given()) return;
  for (const auto& [key, value] : result["text"].items()) line(key, value);
}

void add_train_command(CLI::App& group) {
  auto* command = group.add_subcommand("train", "learn a SentencePiece model from text");
  auto arguments = std::make_shared<TrainArguments>();
  arguments->text.add_to(*command);
  add_count(*command, "--vocab-size", arguments->vocabulary, 8, int64_t{1} << 20,
            "number of pieces, special ones included");
  command
      ->add_option("--output", arguments->output,
                   "the .model file to write; settings go to FILE.json beside it; - for standard "
                   "output")
      ->required()
      ->type_name("FILE");
  command
      ->add_option(
          "--recipe", arguments->recipe,
          "paper: unigram, all characters, line ends lost; t5: unigram, coverage 0.9995, line "
          "ends and rare characters lost; bpe-bytes: BPE, byte fallback, lossless")
      ->check(CLI::IsMember({"paper", "t5", "bpe-bytes"}))
      ->capture_default_str();
  command->add_option("--type", arguments->type, "unigram or bpe instead of the recipe's")
      ->check(CLI::IsMember({"unigram", "bpe"}));
  add_real(*command, "--coverage", arguments->coverage, 0.5, 1,
           "share of characters with pieces of their own, instead of the recipe's");
  auto* fallback = command->add_flag("--byte-fallback", arguments->byte_fallback,
                                     "rare characters become bytes");
  command
      ->add_flag("--no-byte-fallback", arguments->no_byte_fallback,
                 "rare characters become unknown")
      ->excludes(fallback);
  command->add_option("--user-piece", arguments->user_pieces,
                      "a text that is always one piece; may be repeated");
  add_count(*command, "--sample-bytes", arguments->sample_bytes, 1, int64_t{1} << 50,
            "lines are sampled from all files up to this many bytes");
  add_count(*command, "--seed", arguments->seed, 0, kAnyCount, "of the sample");
  add_count(*command, "--threads", arguments->threads, 1, 1024,
            "of the trainer; another number may give another model");
  command->add_flag("--json", arguments->json, "print the record as JSON");
  command->callback([arguments] { train(*arguments); });
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  auto* group = app.add_subcommand("tokenizer", "train, try and inspect SentencePiece models");
  group->require_subcommand(1);
  add_train_command(*group);

  for (const bool encodes : {true, false}) {
    auto* command = encodes
                        ? group->add_subcommand(
                              "encode", "text to pieces or ids; the whole input is one document")
                        : group->add_subcommand("decode", "pieces or ids to text");
    auto arguments = std::make_shared<CodeArguments>();
    command->add_option("--model", arguments->model, "SentencePiece .model file")
        ->required()
        ->type_name("FILE");
    command->add_flag("--ids", arguments->ids,
                      encodes ? "print ids instead of pieces" : "read ids instead of pieces");
    command->add_flag("--lines", arguments->lines, "each line on its own");
    command->add_option("text", arguments->words, "what to convert; without it, standard input")
        ->type_name(encodes ? "TEXT" : "ID");
    command->callback([arguments, encodes] { encodes ? encode(*arguments) : decode(*arguments); });
  }

  auto* command = group->add_subcommand(
      "inspect", "type, vocabulary, special ids, normaliser; with text also how well it fits");
  auto model = std::make_shared<std::string>();
  auto text = std::make_shared<TextArguments>();
  auto as_json = std::make_shared<bool>(false);
  command->add_option("--model", *model, "SentencePiece .model file")
      ->required()
      ->type_name("FILE");
  text->add_to(*command);
  command->add_flag("--json", *as_json, "print JSON");
  command->callback([=] { inspect(*model, *text, *as_json); });
}

}  // namespace polysketch::commands
