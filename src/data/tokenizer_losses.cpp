// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_losses.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "data/tokenizer_model.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr uint32_t kBlockSize = 256;
constexpr uint32_t kPlane = 0x10000, kLastCharacter = 0x10FFFF;

bool is_character(uint32_t c) { return c != 0 && (c < 0xD800 || c > 0xDFFF); }

class LossFinder {
 public:
  explicit LossFinder(const std::function<std::string(const std::string&)>& round_trip)
      : round_trip_(round_trip) {}

  std::vector<std::string> find(const std::vector<std::string>& samples) {
    carrier_ = find_carrier();
    // `a` stands for the carrier.
    note("line ends", {"a\na", "a\n\n\na\n", "\na", "a\r\na\r\n"});
    note("repeated, leading and trailing blanks", {"a  a", " a", "a ", "   a    a  "});
    note("tabs", {"a\ta", "\ta\t\ta\t"});
    note("U+2581 (it becomes a blank)", {"a\xE2\x96\x81"
                                         "a",
                                         "\xE2\x96\x81"
                                         "a",
                                         "a\xE2\x96\x81", " \xE2\x96\x81 \xE2\x96\x81 a"});
    try_characters();
    if (losses_.empty() && !std::all_of(samples.begin(), samples.end(),
                                        [&](const auto& text) { return survives(text); }))
      losses_.emplace_back("some combinations of characters");
    return std::move(losses_);
  }

 private:
  bool survives(const std::string& text) const { return round_trip_(text) == text; }

  /// A character that comes back, so that what happens to its neighbours can be told.
  std::string find_carrier() const {
    std::string character = "a";
    for (uint32_t c = '!'; !survives(character) && c < kPlane; ++c) {
      character.clear();
      if (is_plain(c)) append_utf8(c, character);
    }
    return character;
  }

  void note(const char* loss, const std::vector<std::string>& texts) {
    for (std::string text : texts) {
      for (size_t at = text.find('a'); at != std::string::npos;
           at = text.find('a', at + carrier_.size()))
        text.replace(at, 1, carrier_);
      if (survives(text)) continue;
      losses_.emplace_back(loss);
      return;
    }
  }

  /// In blocks; what a block loses is looked for character by character, until there is an example
  /// of each kind.
  void try_characters() {
    for (uint32_t begin = 0; begin < kPlane; begin += kBlockSize) {
      std::string joined, before_blanks, behind_marks;
      for (uint32_t c = begin; c < begin + kBlockSize; ++c) {
        if (!is_plain(c)) continue;
        append_utf8(c, joined);
        append_utf8(c, before_blanks);
        before_blanks += ' ';
        behind_marks += kBlankMark;
        append_utf8(c, behind_marks);
      }
      if (survives(carrier_ + joined + carrier_) && survives(before_blanks + carrier_) &&
          (!losses_.empty() || survives(behind_marks)))
        continue;
      for (uint32_t c = begin; c < begin + kBlockSize; ++c) try_character(c);
      if (!changed_ && !unknown_ && losses_.empty())
        losses_.push_back(fmt::format("combinations of characters from U+{:04X} on", begin));
      if (changed_ && unknown_) break;
    }
    for (uint32_t c = kPlane; c <= kLastCharacter; c += 257) try_character(c);
  }

  /// White space and U+2581 have probes of their own.
  static bool is_plain(uint32_t c) {
    return is_character(c) && c != '\t' && c != '\n' && c != '\r' && c != ' ' && c != 0x2581;
  }

  void try_character(uint32_t c) {
    if (!is_plain(c) || (changed_ && unknown_)) return;
    std::string character;
    append_utf8(c, character);
    const std::string text = carrier_ + character + carrier_, back = round_trip_(text);
    if (back == text) return;
    const bool is_unknown = back.find("\xE2\x81\x87") != std::string::npos;  // U+2047
    bool& named = is_unknown ? unknown_ : changed_;
    if (named) return;
    named = true;
    losses_.push_back(
        is_unknown
            ? fmt::format("characters without a piece of their own (U+{:04X} becomes unknown)", c)
            : fmt::format("characters that the normaliser changes (such as U+{:04X})", c));
  }

  const std::function<std::string(const std::string&)>& round_trip_;
  std::string carrier_;
  std::vector<std::string> losses_;
  bool changed_ = false, unknown_ = false;
};

}  // namespace

std::vector<std::string> find_losses(
    const std::function<std::string(const std::string&)>& round_trip,
    const std::vector<std::string>& samples) {
  return LossFinder(round_trip).find(samples);
}

}  // namespace polysketch
