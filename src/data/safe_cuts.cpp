// SPDX-License-Identifier: Apache-2.0
#include "data/safe_cuts.hpp"

namespace polysketch {
namespace {

/// The code point at `at`, and on to the next. U+2581, SentencePiece's blank, becomes 0; a NUL of
/// the text becomes a value that is in no piece.
uint32_t decode(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0U;
  };
  const uint32_t first = byte(0);
  if (first < 0x80) {
    ++at;
    return first != 0 ? first : 0x110000;
  }
  if (first < 0xE0) {
    const uint32_t value = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    at += 2;
    return value;
  }
  if (first < 0xF0) {
    const uint32_t value = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    at += 3;
    return value == 0x2581 ? 0 : value;
  }
  const uint32_t value =
      (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  at += 4;
  return value;
}

}  // namespace

SafeCuts::SafeCuts(const ModelSummary& model)
    : possible_(model.type == TokenizerType::unigram || model.type == TokenizerType::bpe) {
  for (const auto& piece : model.pieces) {
    const std::string_view text = piece.text;
    size_t at = 0;
    uint32_t previous = decode(text, at);
    if (at >= text.size()) {
      if (piece.type != PieceType::normal && piece.type != PieceType::user_defined) continue;
      if (previous < kDense) dense_known_.set(previous);
      known_.insert(previous);
    }
    while (at < text.size()) {
      const uint32_t current = decode(text, at);
      if (previous < kDense && current < kDense) dense_pairs_.set(previous * kDense + current);
      pairs_.insert(uint64_t{previous} << 32 | current);
      previous = current;
    }
  }
}

size_t SafeCuts::next(std::string_view text, size_t begin) const {
  if (!possible_ || begin >= text.size()) return text.size();
  size_t at = begin;
  uint32_t previous = decode(text, at);
  while (at < text.size()) {
    const size_t cut = at;
    const uint32_t current = decode(text, at);
    if (!joined(previous, current) && (known(previous) || known(current))) return cut;
    previous = current;
  }
  return text.size();
}

}  // namespace polysketch
