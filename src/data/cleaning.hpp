// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "config/config.hpp"

namespace polysketch {

/// Part of Corpus::processing_id(): raised whenever cleaning gives another text.
inline constexpr int kCleaningVersion = 1;

/// The four markers of Wiki-40B, which Cleaning::markers keeps as one piece each: the tokenizer
/// must have them as user-defined pieces.
inline constexpr std::array<std::string_view, 4> kWikiMarkers = {
    "_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_"};

/// Some exports of Wiki-40B hold the text as the source form of a Python bytes object
/// (`b'\n_START…\xe2\x80\x93'`). Returns what it stands for; any other text, and a literal with a
/// broken escape, unchanged.
std::string repair_bytes_literal(std::string text);

/// Wiki-40B's markup, by mode.
/// none: as it is. plain: titles, headings and markers go; `_NEWLINE_` becomes a newline; blocks of
/// paragraphs stand apart by an empty line. markers: markers stay, each without the line ends
/// around it, so that the tokenizer sees title, heading and body behind one piece.
std::string clean_wiki_markup(std::string_view text, Cleaning mode);

}  // namespace polysketch
