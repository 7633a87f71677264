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
