// SPDX-License-Identifier: Apache-2.0
#include "support/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace polysketch {
namespace {

struct Sequence {
  uint32_t code_point = 0;
  size_t length = 0;  ///< 0: ill-formed
};

// The sequence that starts at text[at] (Unicode 15, table 3-7: the second byte's range rules out
// overlong forms and surrogates).
Sequence decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0};
  };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {lead, 1};
  size_t length = 0;
  uint8_t low = 0x80, high = 0xbf;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {};
  }
  if (byte(at + 1) < low || byte(at + 1) > high) return {};
  uint32_t code_point = (lead & (0x7fu >> length)) << 6 | (byte(at + 1) & 0x3fu);
  for (size_t i = 2; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return {};
    code_point = code_point << 6 | (byte(at + i) & 0x3fu);
  }
  return {code_point, length};
}

bool is_space(uint32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

}  // namespace

std::optional<size_t> invalid_utf8_at(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = decode(text, at).length;
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

ByteOrderMark byte_order_mark(std::string_view text) {
  using namespace std::string_view_literals;
  if (text.starts_with("\xEF\xBB\xBF"sv)) return {3, "UTF-8", false};
  // Before UTF-16, whose mark is the beginning of this one.
  if (text.starts_with("\xFF\xFE\0\0"sv)) return {4, "UTF-32", false};
  if (text.starts_with("\0\0\xFE\xFF"sv)) return {4, "UTF-32", true};
  if (text.starts_with("\xFF\xFE"sv)) return {2, "UTF-16", false};
  if (text.starts_with("\xFE\xFF"sv)) return {2, "UTF-16", true};
  return {};
}

std::string foreign_encoding(std::string_view text) {
  using namespace std::string_view_literals;
  const ByteOrderMark mark = byte_order_mark(text);
  if (text.starts_with("\x1F\x8B"sv))
    return "compressed by gzip: give it a name that ends in .gz, or `gunzip` it";
  if (text.starts_with("\x28\xB5\x2F\xFD"sv)) return "compressed by zstd: `unzstd` it";
  if (text.starts_with("\xFD"
                       "7zX"sv))
    return "compressed by xz: `unxz` it";
  // Latin letters in two bytes each.
  if (mark.bytes == 0 && text.size() >= 4 && text[0] != 0 && text[1] == 0 && text[2] != 0 &&
      text[3] == 0)
    return "UTF-16 text by its zero bytes (little endian, no byte order mark), not UTF-8; "
           "`iconv -f UTF-16LE -t UTF-8 OLD > NEW` converts it";
  if (mark.bytes == 0 || mark.family == "UTF-8") return "";
  return fmt::format(
      "{0} text ({1} endian, by its byte order mark), not UTF-8; `iconv -f {0} -t UTF-8 OLD > NEW` "
      "converts it",
      mark.family, mark.big_endian ? "big" : "little");
}

std::string_view without_byte_order_mark(std::string_view text) {
  const ByteOrderMark mark = byte_order_mark(text);
  if (mark.family == "UTF-8") text.remove_prefix(mark.bytes);
  return text;
}

void append_utf8(uint32_t c, std::string& text) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | c >> 6);
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | c >> 12);
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | c >> 18);
    text += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string ascii_lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return lower;
}

std::string quoted(const std::string& text) {
  constexpr size_t most = 60;
  std::string shown;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (shown.size() >= most && (c & 0xc0) != 0x80) {  // cut between characters
      shown += "...";
      break;
    }
    if (c < 0x20 || c == 0x7f) {
      shown += fmt::format("\\x{:02x}", c);
    } else {
      shown += text[i];
    }
  }
  return invalid_utf8_at(shown) ? "bytes that are not UTF-8" : "'" + shown + "'";
}

int64_t count_words(std::string_view utf8) {
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < utf8.size();) {
    const Sequence next = decode(utf8, at);
    const bool space = next.length > 0 && is_space(next.code_point);
    if (!space && !in_word) ++words;
    in_word = !space;
    at += std::max<size_t>(next.length, 1);
  }
  return words;
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> before_previous(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  std::iota(previous.begin(), previous.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({replaced, previous[j] + 1, current[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        current[j] = std::min(current[j], before_previous[j - 2] + 1);
    }
    std::swap(before_previous, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

std::optional<std::string> nearest(std::string_view word,
                                   const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  int best_distance = 0;
  for (const auto& candidate : candidates) {
    const auto length = static_cast<int>(std::max(word.size(), candidate.size()));
    const int allowed = std::max(2, length / 3);
    // no need to look: the distance is larger
    if (length - static_cast<int>(std::min(word.size(), candidate.size())) > allowed) continue;
    const int distance = edit_distance(word, candidate);
    const bool slip = distance <= allowed && distance < length;  // something must agree
    if (slip && (!best || distance < best_distance)) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace polysketch
