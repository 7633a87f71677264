// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// Byte offset of the first ill-formed UTF-8 sequence (overlong forms, surrogates and values above
/// U+10FFFF count), or nothing.
std::optional<size_t> invalid_utf8_at(std::string_view text);

/// The byte order mark that a text starts with.
struct ByteOrderMark {
  size_t bytes = 0;         ///< its length; 0: the text has none
  std::string_view family;  ///< UTF-8, UTF-16 or UTF-32, as iconv names it
  bool big_endian = false;  ///< of UTF-16 and UTF-32
};
ByteOrderMark byte_order_mark(std::string_view text);

/// `UTF-16 text (little endian, by its byte order mark) …: convert it with …` when a mark other
/// than UTF-8's stands at the start; empty otherwise.
std::string foreign_encoding(std::string_view text);

/// The text without the byte order mark of UTF-8, if it starts with one.
std::string_view without_byte_order_mark(std::string_view text);

/// Appends a code point (none of the surrogates) as UTF-8.
void append_utf8(uint32_t c, std::string& text);

/// Lower case of the letters A to Z; everything else as it is.
std::string ascii_lower(std::string_view text);
/// A value as an error shows it: in quotes, control characters escaped, cut where it is long.
std::string quoted(const std::string& text);

/// Words as `split on white space` counts them (ASCII white space and the Unicode spaces that
/// Python's str.split knows).
int64_t count_words(std::string_view utf8);

/// Edit distance with transpositions (optimal string alignment).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word` if it is near enough to be a slip (distance <= 2, or <= a third
/// of the length).
std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates);

}  // namespace polysketch
