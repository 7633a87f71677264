// SPDX-License-Identifier: Apache-2.0
#include "data/json_member.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdint>

namespace polysketch {
namespace {

constexpr int kMaxDepth = 64;

/// Bytes that end a run of plain characters inside a string: quote, backslash, control characters.
constexpr auto kStops = [] {
  std::array<bool, 256> stops{};
  for (size_t c = 0; c < 0x20; ++c) stops[c] = true;
  stops['"'] = stops['\\'] = true;
  return stops;
}();

void append_utf8(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

class MemberParser {
 public:
  MemberParser(std::string_view line, const std::string& field, std::string& text)
      : line_(line), field_(field), text_(text) {}

  std::string parse() {
    blanks();
    if (peek() != '{') return at_end() ? wrong("nothing there") : "not a JSON object";
    if (!object()) return error_;
    blanks();
    if (!at_end()) return wrong("something follows the object");
    if (lone_surrogate_) return "a lone surrogate escape";
    switch (found_) {
      case Found::nothing:
        return fmt::format("no field '{}'", field_);
      case Found::null:
        return fmt::format("field '{}' is null", field_);
      case Found::other:
        return fmt::format("field '{}' is not a string", field_);
      case Found::twice:
        return fmt::format("field '{}' stands twice", field_);
      case Found::text:
        break;
    }
    return "";
  }

 private:
  enum class Found { nothing, null, other, text, twice };

  bool at_end() const { return at_ >= line_.size(); }
  char peek() const { return at_end() ? '\0' : line_[at_]; }
  std::string wrong(const char* what) const {
    return fmt::format("not valid JSON (at byte {} of the line: {})", at_, what);
  }
  bool fail(const char* what) {
    if (error_.empty()) error_ = wrong(what);
    return false;
  }
  void blanks() {
    while (!at_end() &&
           (line_[at_] == ' ' || line_[at_] == '\t' || line_[at_] == '\n' || line_[at_] == '\r'))
      ++at_;
  }
  bool take(char c) {
    if (peek() != c || at_end()) return false;
    ++at_;
    return true;
  }

  bool object() {
    if (++depth_ > kMaxDepth) return fail("nested too deep");
    take('{');
    blanks();
    if (take('}')) return leave();
    while (true) {
      blanks();
      if (peek() != '"') return fail("want a key");
      key_.clear();
      if (!string(depth_ == 1 ? &key_ : nullptr)) return false;
      blanks();
      if (!take(':')) return fail("want ':'");
      blanks();
      if (depth_ == 1 && key_ == field_ ? !wanted_value() : !value()) return false;
      blanks();
      if (take('}')) return leave();
      if (!take(',')) return fail("want ',' or '}'");
    }
  }

  bool array() {
    if (++depth_ > kMaxDepth) return fail("nested too deep");
    take('[');
    blanks();
    if (take(']')) return leave();
    while (true) {
      blanks();
      if (!value()) return false;
      blanks();
      if (take(']')) return leave();
      if (!take(',')) return fail("want ',' or ']'");
    }
  }

  bool leave() {
    --depth_;
    return true;
  }

  bool wanted_value() {
    const bool again = found_ != Found::nothing;
    if (peek() == '"') {
      found_ = Found::text;
      text_.clear();
      if (!string(&text_)) return false;
    } else {
      found_ = peek() == 'n' ? Found::null : Found::other;
      if (!value()) return false;
    }
    if (again) found_ = Found::twice;
    return true;
  }

  bool value() {
    switch (peek()) {
      case '"':
        return string(nullptr);
      case '{':
        return object();
      case '[':
        return array();
      case 't':
        return literal("true");
      case 'f':
        return literal("false");
      case 'n':
        return literal("null");
      default:
        return number();
    }
  }

  bool literal(std::string_view word) {
    if (line_.substr(at_, word.size()) != word) return fail("want a value");
    at_ += word.size();
    return true;
  }

  bool digits() {
    const size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > begin;
  }

  bool number() {
    take('-');
    if (!take('0') && !digits()) return fail("want a value");
    if (take('.') && !digits()) return fail("want a digit");
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (!take('+')) take('-');
      if (!digits()) return fail("want a digit");
    }
    return true;
  }

  /// Appends to `out` if there is one.
  bool string(std::string* out) {
    ++at_;
    while (true) {
      const size_t begin = at_;
      while (at_ < line_.size() && !kStops[static_cast<uint8_t>(line_[at_])]) ++at_;
      if (out != nullptr) out->append(line_, begin, at_ - begin);
      if (at_end()) return fail("the line ends inside a string");
      if (line_[at_] == '"') {
        ++at_;
        return true;
      }
      if (line_[at_] != '\\') return fail("a control character stands in a string");
      if (!escape(out)) return false;
    }
  }

  bool escape(std::string* out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    ++at_;
    if (peek() == 'u') return unicode_escape(out);
    const size_t name = at_end() ? std::string_view::npos : kNames.find(line_[at_]);
    if (name == std::string_view::npos) return fail("an unknown escape");
    ++at_;
    if (out != nullptr) *out += kMeanings[name];
    return true;
  }

  bool four_digits(uint32_t& value) {
    value = 0;
    if (at_ + 4 > line_.size()) return fail("an unknown escape");
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = line_[at_];
      const auto lower = static_cast<char>(c | 0x20);
      const int digit = c >= '0' && c <= '9'           ? c - '0'
                        : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                       : -1;
      if (digit < 0) return fail("an unknown escape");
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    return true;
  }

  bool unicode_escape(std::string* out) {
    uint32_t c = 0;
    ++at_;
    if (!four_digits(c)) return false;
    if (c >= 0xD800 && c < 0xDC00 && line_.substr(at_, 2) == "\\u") {
      const size_t before = at_;
      uint32_t low = 0;
      at_ += 2;
      if (!four_digits(low)) return false;
      if (low >= 0xDC00 && low < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      } else {
        at_ = before;
      }
    }
    lone_surrogate_ = lone_surrogate_ || (c >= 0xD800 && c < 0xE000);
    if (out != nullptr && !lone_surrogate_) append_utf8(c, *out);
    return true;
  }

  std::string_view line_;
  const std::string& field_;
  std::string& text_;
  std::string key_, error_;
  size_t at_ = 0;
  int depth_ = 0;
  Found found_ = Found::nothing;
  bool lone_surrogate_ = false;
};

}  // namespace

std::string extract_string_member(std::string_view line, const std::string& field,
                                  std::string& text) {
  std::string error = MemberParser(line, field, text).parse();
  if (!error.empty()) text.clear();
  return error;
}

}  // namespace polysketch
