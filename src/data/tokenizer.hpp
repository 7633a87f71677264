// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

struct ModelSummary;

/// A SentencePiece model, loaded after checks that a hostile or broken file cannot get past
/// (size, piece lengths, scores, charsmap; first load in a forked child). All const
/// members may be called from several threads.
class Tokenizer {
 public:
  /// Throws UserError 66 (missing) or 65 (not a usable SentencePiece model, and why).
  explicit Tokenizer(const std::string& path);
  /// The same for what would be in a file; name: for messages.
  static Tokenizer from_bytes(const std::string& serialized, const std::string& name);

  /// Appends the ids of a whole document (no BOS, no EOS). Never call it on pieces of a document
  /// and join the results: SentencePiece puts its dummy prefix before every call. Long texts are
  /// still encoded in linear time: the normalised text is cut between two characters that stand
  /// side by side in no piece, where no piece can lie across, so the ids are those of the whole.
  ///
  /// SentencePiece writes a blank as U+2581, so it gives a U+2581 of the text back as a blank.
  /// Models that lose nothing else get its three bytes instead (escapes_blank_mark), which come
  /// back as they were.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int32_t>& ids) const;

  int32_t vocabulary() const;
  int32_t eos() const;  ///< separates documents; UserError 65 if the model has none
  int32_t unknown() const;
  bool is_byte(int32_t id) const;     ///< byte-fallback piece
  const std::string& sha256() const;  ///< of the .model file
  /// What decides the ids of a text: the model, and whether U+2581 is escaped.
  std::string encoding_id() const;
  bool escapes_blank_mark() const;

  /// What decode(encode(x)) does not give back, `line ends`, `U+2581 (it becomes a blank)`, …;
  /// found by trying: every character of the Basic Multilingual Plane alone and beside blanks,
  /// every 257th of the other planes, white space in all places. Empty: nothing. Worked out once.
  const std::vector<std::string>& losses() const;
  bool lossless() const { return losses().empty(); }

  bool has_eos() const;
  int32_t bos() const;  ///< -1: the model has none
  int32_t pad() const;  ///< -1: the model has none
  const std::string& piece(int32_t id) const;
  /// The id of a piece that is in the vocabulary as it stands, or -1.
  int32_t id_of(std::string_view piece) const;
  bool is_control(int32_t id) const;
  const std::string& path() const;
  const ModelSummary& model() const;

  /// Throws UserError 78 unless every id fits a model with this many output rows and the markers
  /// that `cleaning` keeps are pieces of the vocabulary.
  void require_fits(int64_t model_vocabulary, Cleaning cleaning) const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace polysketch
