// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

enum class PieceType {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};
enum class TokenizerType { unigram = 1, bpe = 2, word = 3, characters = 4 };

struct ModelPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

/// What a SentencePiece model file says, read without SentencePiece.
struct ModelSummary {
  TokenizerType type = TokenizerType::unigram;
  std::vector<ModelPiece> pieces;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string normalizer;  ///< name of the rule, e.g. nmt_nfkc, identity
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool character_map = false;  ///< the normaliser changes characters
};

/// U+2581, which stands for a blank inside a model.
inline constexpr std::string_view kBlankMark = "\xE2\x96\x81";

const char* tokenizer_type_name(TokenizerType type);

/// Parses and checks a serialised model: at most 64 MiB, 2^20 pieces, 1 KiB a piece, finite scores,
/// pieces valid UTF-8 without NUL, not empty, each once, one unknown piece, character map inside
/// its own bounds. Throws UserError 65 as `path: what`.
ModelSummary check_model(std::string_view serialized, const std::string& path);

/// The same pieces and trainer settings behind a normaliser that changes nothing: for text that is
/// normalised already.
std::string without_normalizer(std::string_view serialized);

}  // namespace polysketch
