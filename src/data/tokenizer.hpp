// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// A SentencePiece model, loaded after checks that a hostile or broken file cannot get past (reliability §4: size, piece lengths, scores,
/// charsmap; first load in a forked child). All const members may be called from several threads.
class Tokenizer {
 public:
  /// Throws UserError 66 (missing) or 65 (not a usable SentencePiece model, and why).
  explicit Tokenizer(const std::string& path);

  /// Appends the ids of a whole document (no BOS, no EOS). Never call it on pieces of a document and join the results: SentencePiece
  /// puts its dummy prefix before every call. Long texts are still encoded in linear time.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int32_t>& ids) const;

  int32_t vocabulary() const;
  int32_t eos() const;      ///< separates documents
  int32_t unknown() const;
  bool is_byte(int32_t id) const;  ///< byte-fallback piece
  const std::string& sha256() const;  ///< of the .model file
  /// decode(encode(x)) == x on a set of probe texts with newlines, tabs, runs of blanks and rare characters.
  bool lossless() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace polysketch
