// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_training.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "data/text_cut.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

// the trainer's own mark for unknown characters
constexpr std::string_view kReserved = "\xE2\x96\x85";

class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return at_ >= lines_.size(); }
  void Next() override { lines_[at_++] = std::string(); }  // the trainer has its own copy now
  const std::string& value() const override { return lines_[at_]; }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  std::vector<std::string> lines_;
  size_t at_ = 0;
};

std::unordered_map<std::string, std::string> trainer_arguments(const TokenizerTraining& settings) {
  const nlohmann::ordered_json record = training_record(settings);
  std::unordered_map<std::string, std::string> arguments = {
      {"input_sentence_size", "0"},
      {"shuffle_input_sentence", "false"},
      {"max_sentence_length", std::to_string(LineSample::kMaxLineBytes + 1)},  // with its line end
      {"minloglevel", "3"},
      {"num_threads", std::to_string(settings.threads)},
      {"user_defined_symbols", fmt::format("{}", fmt::join(settings.user_pieces, ","))},
  };
  for (const auto& [key, value] : record["sentencepiece"].items()) {
    arguments[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  return arguments;
}

int64_t number_after(const std::string& text, std::string_view words) {
  int64_t value = 0;
  const size_t at = text.find(words);
  if (at == std::string::npos) return 0;
  std::from_chars(text.data() + at + words.size(), text.data() + text.size(), value);
  return value;
}

[[noreturn]] void fail(const TokenizerTraining& settings, std::string message) {
  if (const int64_t largest = number_after(message, "set it to a value <= "); largest > 0) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("--vocab-size {}: this text gives at most {} pieces: set "
                                "--vocab-size to at most {}, or give more text",
                                settings.vocabulary, largest, largest));
  }
  if (message.find("smaller than required_chars") != std::string::npos) {
    const int64_t smallest = number_after(message, " vs ");
    throw UserError(ExitCode::bad_data,
                    fmt::format("--vocab-size {}: the characters of this text and the special "
                                "pieces alone need {}: set --vocab-size above "
                                "that, or lower --coverage",
                                settings.vocabulary, smallest));
  }
  std::replace(message.begin(), message.end(), '\n', ' ');
  throw UserError(ExitCode::bad_data,
                  fmt::format("the tokenizer cannot be trained on this text: {}", message));
}

}  // namespace

LineSample::LineSample(int64_t max_bytes, uint64_t seed, bool keep_line_ends)
    : max_bytes_(max_bytes),
      seed_(seed),
      keep_line_ends_(keep_line_ends),
      random_(seed, RandomPurpose::sampling) {}

void LineSample::begin_file(uint64_t number) {
  file_ = number;
  place_ = 0;
  random_ = Philox(seed_, RandomPurpose::sampling, number);
}

void LineSample::add(std::string_view document) {
  ++counts_.documents;
  for (size_t begin = 0; begin < document.size();) {
    const size_t newline = document.find('\n', begin);
    const size_t end =
        newline == std::string_view::npos ? document.size() : newline + (keep_line_ends_ ? 1 : 0);
    if (end > begin) add_line(document.substr(begin, end - begin));
    begin = newline == std::string_view::npos ? document.size() : newline + 1;
  }
}

void LineSample::add_line(std::string_view line) {
  ++counts_.lines;
  counts_.bytes += static_cast<int64_t>(line.size());
  bool split = false;
  while (!line.empty()) {
    const size_t reserved = line.find(kReserved);
    std::string_view part = line.substr(0, reserved);
    if (part.size() > kMaxLineBytes)
      part = part.substr(0, cut_position(part.substr(0, kMaxLineBytes)));
    line.remove_prefix(part.size());
    if (line.starts_with(kReserved)) line.remove_prefix(kReserved.size());
    split = split || !line.empty();
    if (!part.empty()) offer(part);
  }
  counts_.split_lines += split ? 1 : 0;
}

void LineSample::offer(std::string_view part) {
  Line line{random_.next_u64(), file_, place_++, {}};
  const bool full = counts_.sampled_bytes + static_cast<int64_t>(part.size()) > max_bytes_;
  if (full && !lines_.empty() && lines_.top() < line) return;
  line.text = part;
  counts_.sampled_bytes += static_cast<int64_t>(part.size());
  lines_.push(std::move(line));
  while (counts_.sampled_bytes > max_bytes_ && lines_.size() > 1) {
    counts_.sampled_bytes -= static_cast<int64_t>(lines_.top().text.size());
    lines_.pop();
  }
}

LineSample::Counts LineSample::counts() const {
  Counts counts = counts_;
  counts.sampled_lines = static_cast<int64_t>(lines_.size());
  return counts;
}

std::vector<std::string> LineSample::take() {
  std::vector<Line> sample;
  sample.reserve(lines_.size());
  while (!lines_.empty()) {
    sample.push_back(lines_.top());
    lines_.pop();
  }
  std::sort(sample.begin(), sample.end(), [](const Line& a, const Line& b) {
    return std::tie(a.file, a.place) < std::tie(b.file, b.place);
  });
  std::vector<std::string> lines;
  lines.reserve(sample.size());
  for (auto& line : sample) lines.push_back(std::move(line.text));
  return lines;
}

bool keeps_line_ends(TokenizerRecipe recipe) { return recipe == TokenizerRecipe::bpe_bytes; }

const char* recipe_name(TokenizerRecipe recipe) {
  switch (recipe) {
    case TokenizerRecipe::paper:
      return "paper";
    case TokenizerRecipe::t5:
      return "t5";
    case TokenizerRecipe::bpe_bytes:
      return "bpe-bytes";
  }
  return "";
}

std::optional<TokenizerRecipe> parse_recipe(std::string_view name) {
  for (const auto recipe :
       {TokenizerRecipe::paper, TokenizerRecipe::t5, TokenizerRecipe::bpe_bytes}) {
    if (name == recipe_name(recipe)) return recipe;
  }
  return std::nullopt;
}

nlohmann::ordered_json training_record(const TokenizerTraining& settings) {
  const bool bytes = settings.recipe == TokenizerRecipe::bpe_bytes;
  const bool paper = settings.recipe == TokenizerRecipe::paper;
  const auto type = settings.type.value_or(bytes ? TokenizerType::bpe : TokenizerType::unigram);
  nlohmann::ordered_json trainer = {
      {"model_type", tokenizer_type_name(type)},
      {"vocab_size", settings.vocabulary},
      {"character_coverage", settings.coverage.value_or(paper ? 1.0 : 0.9995)},
      {"byte_fallback", settings.byte_fallback.value_or(bytes)},
      {"split_digits", bytes},
      {"allow_whitespace_only_pieces", bytes},
      {"normalization_rule_name", bytes ? "identity" : "nmt_nfkc"},
      {"remove_extra_whitespaces", !bytes},
      {"unk_id", paper ? 0 : 2},
      {"bos_id", paper ? 1 : -1},
      {"eos_id", paper ? 2 : 1},
      {"pad_id", paper ? -1 : 0},
  };
  return {{"recipe", recipe_name(settings.recipe)},
          {"seed", settings.seed},
          {"threads", settings.threads},
          {"user_pieces", settings.user_pieces},
          {"keeps_line_ends", keeps_line_ends(settings.recipe)},
          {"sentencepiece", trainer}};
}

std::string train_tokenizer(const TokenizerTraining& settings, std::vector<std::string> lines) {
  if (lines.empty())
    throw UserError(ExitCode::bad_data,
                    "the input holds no text: a tokenizer needs some lines to learn from");
  sentencepiece::SetRandomGeneratorSeed(static_cast<unsigned int>(settings.seed));
  Lines source(std::move(lines));
  std::string model;
  const auto status =
      sentencepiece::SentencePieceTrainer::Train(trainer_arguments(settings), &source, &model);
  if (!status.ok()) fail(settings, std::string(status.message()));
  check_model(model, "the trained model");
  return model;
}

}  // namespace polysketch
