// SPDX-License-Identifier: Apache-2.0
#include "data/json_member.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdint>

#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr int kMaxDepth = 1000;

/// Bytes that end a run of plain characters inside a string: quote, backslash, control characters.
constexpr auto kStops = [] {
  std::array<bool, 256> stops{};
  for (size_t c = 0; c < 0x20; ++c) stops[c] = true;
  stops['"'] = stops['\\'] = true;
  return stops;
}();

class MemberParser {
 public:
  MemberParser(std::string_view line, const std::string& field, std::string& text)
      : line_(line), field_(field), text_(text) {}

  ExtractedMember parse() {
    blanks();
    if (peek() == '[') return {"a JSON array, not a JSON object"};
    if (peek() != '{') return {at_end() ? wrong("nothing there") : "not a JSON object"};
    if (!object()) return {error_};
    blanks();
    if (peek() == ',') return {wrong("a comma follows the object: JSON lines have none")};
    if (!at_end()) return {wrong("something follows the object")};
    if (times_ > 1) return {fmt::format("field '{}' appears twice", field_)};
    if (found_ == Found::text && lone_surrogate_) return {"a lone surrogate escape"};
    if (found_ == Found::text) return {};
    if (found_ == Found::nothing) return {fmt::format("no field '{}'", field_)};
    if (found_ == Found::null) return {fmt::format("field '{}' is null", field_), true};
    return {fmt::format("field '{}' is {}, not a string", field_,
                        found_ == Found::array    ? "an array"
                        : found_ == Found::object ? "an object"
                        : found_ == Found::number ? "a number"
                                                  : "a boolean")};
  }

 private:
  enum class Found { nothing, null, text, array, object, number, truth };

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
      if (peek() != '"') return fail("expected a key");
      key_.clear();
      if (!string(depth_ == 1 ? &key_ : nullptr)) return false;
      blanks();
      if (!take(':')) return fail("expected ':'");
      blanks();
      if (depth_ == 1 && key_ == field_ ? !wanted_value() : !value()) return false;
      blanks();
      if (take('}')) return leave();
      if (!take(',')) return fail("expected ',' or '}'");
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
      if (!take(',')) return fail("expected ',' or ']'");
    }
  }

  bool leave() {
    --depth_;
    return true;
  }

  bool wanted_value() {
    ++times_;
    switch (peek()) {
      case '"':
        found_ = Found::text;
        text_.clear();
        lone_surrogate_ = false;
        return string(&text_);
      case '[':
        found_ = Found::array;
        break;
      case '{':
        found_ = Found::object;
        break;
      case 't':
      case 'f':
        found_ = Found::truth;
        break;
      case 'n':
        found_ = Found::null;
        break;
      default:
        found_ = Found::number;
    }
    return value();
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
      case 'N':
        return literal("NaN");
      case 'I':
        return literal("Infinity");
      default:
        return number();
    }
  }

  bool literal(std::string_view word) {
    if (line_.substr(at_, word.size()) != word) return fail("expected a value");
    at_ += word.size();
    return true;
  }

  bool digits() {
    const size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > begin;
  }

  bool number() {
    if (take('-') && peek() == 'I') return literal("Infinity");
    if (!take('0') && !digits()) return fail("expected a value");
    if (take('.') && !digits()) return fail("expected a digit");
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (!take('+')) take('-');
      if (!digits()) return fail("expected a digit");
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
    // Where nobody asks for the string it does no harm; a key with one is not the key wanted.
    const bool lone = c >= 0xD800 && c < 0xE000;
    lone_surrogate_ = lone_surrogate_ || (lone && out == &text_);
    if (out != nullptr) append_utf8(lone ? 0xFFFD : c, *out);
    return true;
  }

  std::string_view line_;
  const std::string& field_;
  std::string& text_;
  std::string key_, error_;
  size_t at_ = 0;
  int depth_ = 0;
  Found found_ = Found::nothing;  // the last one, and how many there were
  int times_ = 0;
  bool lone_surrogate_ = false;
};

}  // namespace

ExtractedMember extract_string_member(std::string_view line, const std::string& field,
                                      std::string& text) {
  ExtractedMember member = MemberParser(line, field, text).parse();
  if (!member.error.empty()) text.clear();
  return member;
}

}  // namespace polysketch
