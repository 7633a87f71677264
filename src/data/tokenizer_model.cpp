// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_model.hpp"

#include <fmt/format.h>

#include <cmath>
#include <unordered_set>

#include "data/protobuf_wire.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr size_t kMaxModelBytes = size_t{64} << 20;
constexpr size_t kMaxPieces = size_t{1} << 20;
constexpr size_t kMaxPieceBytes = 1024;

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kPieces = 1, kTrainer = 2, kNormalizer = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kModelType = 3, kSuffix = 24, kByteFallback = 35;
constexpr uint32_t kRuleName = 1, kCharsmap = 2, kDummyPrefix = 3, kExtraWhitespaces = 4,
                   kEscapeWhitespaces = 5;

class ModelChecker {
 public:
  explicit ModelChecker(const std::string& path) : path_(path) {}

  ModelSummary check(std::string_view serialized) {
    if (serialized.empty()) fail("is empty");
    if (serialized.size() > kMaxModelBytes)
      fail(fmt::format("is larger than {} bytes", kMaxModelBytes));
    WireReader top(serialized);
    WireField field;
    while (top.next(field)) {
      if (field.type != 2) continue;
      if (field.number == kPieces) read_piece(field.bytes);
      if (field.number == kTrainer) read_trainer(field.bytes);
      if (field.number == kNormalizer) read_normalizer(field.bytes);
    }
    if (!top.ok()) fail("is not a SentencePiece model, or is truncated");
    if (summary_.pieces.empty()) fail("is not a SentencePiece model: it has no pieces");
    if (unknown_ != 1) fail(fmt::format("has {} unknown pieces instead of one", unknown_));
    return std::move(summary_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: {}: use a SentencePiece .model file", path_, what));
  }

  void read_piece(std::string_view message) {
    const size_t id = summary_.pieces.size();
    if (id >= kMaxPieces) fail(fmt::format("has more than {} pieces", kMaxPieces));
    ModelPiece piece;
    WireReader reader(message);
    WireField field;
    while (reader.next(field)) {
      if (field.number == kPieceText && field.type == 2) {
        if (field.bytes.size() > kMaxPieceBytes)
          fail(fmt::format("piece {} is longer than {} bytes", id, kMaxPieceBytes));
        piece.text.assign(field.bytes);
      } else if (field.number == kPieceScore && field.type == 5) {
        piece.score = wire_float(field);
      } else if (field.number == kPieceType && field.type == 0) {
        if (field.integer < 1 || field.integer > 6)
          fail(fmt::format("piece {} has the unknown type {}", id, field.integer));
        piece.type = static_cast<PieceType>(field.integer);
      }
    }
    if (!reader.ok()) fail(fmt::format("piece {} is damaged", id));
    if (piece.text.empty()) fail(fmt::format("piece {} is empty", id));
    if (piece.text.find('\0') != std::string::npos) fail(fmt::format("piece {} holds a NUL", id));
    if (invalid_utf8_at(piece.text)) fail(fmt::format("piece {} is not valid UTF-8", id));
    if (!std::isfinite(piece.score)) fail(fmt::format("the score of piece {} is not finite", id));
    if (!seen_.insert(piece.text).second) fail(fmt::format("piece {} appears twice", id));
    unknown_ += piece.type == PieceType::unknown ? 1 : 0;
    summary_.pieces.push_back(std::move(piece));
  }

  void read_trainer(std::string_view message) {
    WireReader reader(message);
    WireField field;
    while (reader.next(field)) {
      if (field.type != 0) continue;
      if (field.number == kModelType) {
        if (field.integer < 1 || field.integer > 4)
          fail(fmt::format("has the unknown type {}", field.integer));
        summary_.type = static_cast<TokenizerType>(field.integer);
      }
      if (field.number == kSuffix) summary_.whitespace_as_suffix = field.integer != 0;
      if (field.number == kByteFallback) summary_.byte_fallback = field.integer != 0;
    }
    if (!reader.ok()) fail("its trainer settings are damaged");
  }

  void read_normalizer(std::string_view message) {
    WireReader reader(message);
    WireField field;
    while (reader.next(field)) {
      if (field.number == kRuleName && field.type == 2) summary_.normalizer.assign(field.bytes);
      if (field.number == kCharsmap && field.type == 2) {
        check_charsmap(field.bytes);
        summary_.character_map = !field.bytes.empty();
      }
      if (field.type != 0) continue;
      if (field.number == kDummyPrefix) summary_.dummy_prefix = field.integer != 0;
      if (field.number == kExtraWhitespaces) summary_.remove_extra_whitespaces = field.integer != 0;
      if (field.number == kEscapeWhitespaces) summary_.escape_whitespaces = field.integer != 0;
    }
    if (!reader.ok()) fail("its normaliser is damaged");
  }

  /// <u32 size of the trie><trie: 32-bit units><replacements, each closed by NUL>
  void check_charsmap(std::string_view map) const {
    if (map.empty()) return;
    uint32_t trie = 0;
    if (map.size() <= sizeof trie) fail("its character map is truncated");
    std::memcpy(&trie, map.data(), sizeof trie);
    if (trie % 4 != 0 || trie < 1024 || trie >= map.size() - sizeof trie)
      fail("its character map is damaged");
    if (map.back() != '\0') fail("its character map does not end with a NUL");
  }

  const std::string& path_;
  ModelSummary summary_;
  std::unordered_set<std::string> seen_;
  int64_t unknown_ = 0;
};

void append_bool(std::string& message, uint32_t number, bool value) {
  message += static_cast<char>(number << 3);
  message += static_cast<char>(value);
}

}  // namespace

const char* tokenizer_type_name(TokenizerType type) {
  switch (type) {
    case TokenizerType::unigram:
      return "unigram";
    case TokenizerType::bpe:
      return "bpe";
    case TokenizerType::word:
      return "word";
    case TokenizerType::characters:
      return "characters";
  }
  return "unknown";
}

ModelSummary check_model(std::string_view serialized, const std::string& path) {
  return ModelChecker(path).check(serialized);
}

std::string without_normalizer(std::string_view serialized) {
  std::string copy;
  copy.reserve(serialized.size());
  WireReader top(serialized);
  WireField field;
  while (top.next(field)) {
    // Self tests would be run against the normaliser that is gone.
    if (field.number == kPieces || field.number == kTrainer) copy += field.whole;
  }
  std::string normalizer;
  normalizer += static_cast<char>(kRuleName << 3 | 2);
  constexpr std::string_view kIdentity = "identity";
  normalizer += static_cast<char>(kIdentity.size());
  normalizer += kIdentity;
  append_bool(normalizer, kDummyPrefix, false);
  append_bool(normalizer, kExtraWhitespaces, false);
  append_bool(normalizer, kEscapeWhitespaces, false);
  copy += static_cast<char>(kNormalizer << 3 | 2);
  copy += static_cast<char>(normalizer.size());
  return copy + normalizer;
}

}  // namespace polysketch
