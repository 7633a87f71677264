// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "data/tokenizer_model.hpp"
#include "support/philox.hpp"

namespace polysketch {

/// Ready settings for a SentencePiece model.
/// paper: unigram, every character covered, nmt_nfkc, ids unk 0, <s> 1, </s> 2 (what the authors
/// most likely used; line ends are lost). t5: unigram, coverage 0.9995, nmt_nfkc, ids pad 0, </s>
/// 1, unk 2, no <s>.
/// bpe_bytes: BPE, coverage 0.9995, other characters as bytes, single digits, text unchanged (line
/// ends and blanks are kept), ids as t5.
enum class TokenizerRecipe { paper, t5, bpe_bytes };

struct TokenizerTraining {
  TokenizerRecipe recipe = TokenizerRecipe::paper;
  int64_t vocabulary = 32'000;
  std::optional<TokenizerType> type;  ///< unigram or bpe; nothing: the recipe's
  std::optional<double> coverage;  ///< share of all characters that get pieces of their own, (0, 1]
  std::optional<bool> byte_fallback;     ///< rare characters as bytes instead of unknown
  std::vector<std::string> user_pieces;  ///< always one piece each
  uint64_t seed = 1;
  int64_t threads = 4;  ///< part of the result's identity: sums are split among them
};

/// A uniform sample of the lines of any number of files with a bound on its bytes. Each line gets a
/// random number that depends on seed, file and place only, and those with the smallest numbers
/// stay: the sample does not depend on the order in which files are read.
class LineSample {
 public:
  /// `keep_line_ends`: lines keep their "\n", so that the model learns pieces for it.
  LineSample(int64_t max_bytes, uint64_t seed, bool keep_line_ends);

  void begin_file(uint64_t number);
  /// Lines over SentencePiece's limit (kMaxLineBytes), which its trainer would drop, are split; so
  /// are lines at U+2585, which it reserves.
  void add(std::string_view document);

  struct Counts {
    int64_t documents = 0, lines = 0, bytes = 0;  ///< seen
    int64_t split_lines = 0;
    int64_t sampled_lines = 0, sampled_bytes = 0;
  };
  Counts counts() const;
  /// The sample in the order of files and places. Empties it.
  std::vector<std::string> take();

  static constexpr size_t kMaxLineBytes = 4192;

 private:
  struct Line {
    uint64_t key, file, place;
    std::string text;
    bool operator<(const Line& other) const {
      return std::tie(key, file, place) < std::tie(other.key, other.file, other.place);
    }
  };
  void add_line(std::string_view line);
  void offer(std::string_view part);

  int64_t max_bytes_;
  uint64_t seed_;
  bool keep_line_ends_;
  uint64_t file_ = 0, place_ = 0;
  Philox random_;
  std::priority_queue<Line> lines_;  // the largest key on top
  Counts counts_;
};

/// A serialised model. Throws UserError 65 when the sample cannot give this vocabulary, naming the
/// largest (or smallest) that it can.
std::string train_tokenizer(const TokenizerTraining& settings, std::vector<std::string> lines);

/// The settings after the recipe was filled in: for the record beside the model.
nlohmann::ordered_json training_record(const TokenizerTraining& settings);

bool keeps_line_ends(TokenizerRecipe recipe);
std::optional<TokenizerRecipe> parse_recipe(std::string_view name);
const char* recipe_name(TokenizerRecipe recipe);

}  // namespace polysketch
