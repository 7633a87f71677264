// SPDX-License-Identifier: Apache-2.0
#include "data/cleaning.hpp"

namespace polysketch {
namespace {

constexpr std::string_view kNewline = "_NEWLINE_";
constexpr std::string_view kParagraph = "_START_PARAGRAPH_";
constexpr std::string_view kStart = "_START_";

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Appends what the escape at `at` (a backslash) means; returns its length, 0 if it is no escape of
/// a bytes literal.
size_t unescape(std::string_view text, size_t at, std::string& out) {
  if (at + 1 >= text.size()) return 0;
  switch (text[at + 1]) {
    case 'n':
      out += '\n';
      return 2;
    case 't':
      out += '\t';
      return 2;
    case 'r':
      out += '\r';
      return 2;
    case '\\':
    case '\'':
    case '"':
      out += text[at + 1];
      return 2;
    case 'x': {
      if (at + 3 >= text.size()) return 0;
      const int high = hex_digit(text[at + 2]), low = hex_digit(text[at + 3]);
      if (high < 0 || low < 0) return 0;
      out += static_cast<char>(high * 16 + low);
      return 4;
    }
    default:
      return 0;
  }
}

/// The marker that a line consists of, or nothing.
std::string_view marker_of(std::string_view line) {
  if (!line.starts_with(kStart)) return {};
  for (const auto marker : kWikiMarkers) {
    if (line == marker) return marker;
  }
  return {};
}

void append_unfolded(std::string_view line, std::string& out) {
  for (size_t begin = 0; begin <= line.size();) {
    const size_t at = line.find(kNewline, begin);
    out += line.substr(begin, at - begin);
    if (at == std::string_view::npos) break;
    out += '\n';
    begin = at + kNewline.size();
  }
}

template <class Visit>
void each_line(std::string_view text, const Visit& visit) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    visit(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

std::string plain(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::string_view marker = kParagraph;  // text before the first marker is body
  bool first_of_block = false;
  each_line(text, [&](std::string_view line) {
    if (const auto found = marker_of(line); !found.empty()) {
      marker = found;
      first_of_block = true;
    } else if (marker == kParagraph && !line.empty()) {
      if (!out.empty()) out += first_of_block ? "\n\n" : "\n";
      first_of_block = false;
      append_unfolded(line, out);
    }
  });
  return out;
}

std::string joined_to_markers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_marker = true;  // the line end that opens every article goes too
  each_line(text, [&](std::string_view line) {
    if (const auto marker = marker_of(line); !marker.empty()) {
      out += marker;
      after_marker = true;
      return;
    }
    if (!after_marker) out += '\n';
    if (!line.empty() || !out.empty()) after_marker = false;
    out += line;
  });
  return out;
}

}  // namespace

std::string repair_bytes_literal(std::string text) {
  if (text.size() < 3 || text[0] != 'b' || (text[1] != '\'' && text[1] != '"') ||
      text.back() != text[1])
    return text;
  const std::string_view body = std::string_view(text).substr(2, text.size() - 3);
  std::string out;
  out.reserve(body.size());
  for (size_t at = 0; at < body.size();) {
    if (body[at] != '\\') {
      // cannot stand inside such a literal
      if (body[at] == '\n' || body[at] == text[1]) return text;
      out += body[at++];
      continue;
    }
    const size_t length = unescape(body, at, out);
    if (length == 0) return text;
    at += length;
  }
  return out;
}

std::string clean_wiki_markup(std::string_view text, Cleaning mode) {
  switch (mode) {
    case Cleaning::plain:
      return plain(text);
    case Cleaning::markers:
      return joined_to_markers(text);
    case Cleaning::none:
      break;
  }
  return std::string(text);
}

}  // namespace polysketch
