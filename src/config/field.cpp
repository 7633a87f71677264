// SPDX-License-Identifier: Apache-2.0
// What a single key accepts and how its value is written.
#include <fmt/format.h>
#include <regex.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "config/keys.hpp"
#include "support/error.hpp"
#include "support/text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

// The fewest digits that read back as the same number, in a form that every YAML reader takes for a
// number: 0.0007, 1.0e-8 (the YAML 1.1 of many libraries reads 1e-8 as text).
std::string shortest(double value) {
  const double magnitude = std::abs(value);
  const bool fixed = magnitude == 0 || (magnitude >= 1e-6 && magnitude < 1e15);
  std::array<char, 64> buffer{};
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    fixed ? std::chars_format::fixed : std::chars_format::scientific);
  require(error == std::errc{}, "a real number needs more than 64 characters");
  std::string text(buffer.data(), end);
  if (fixed) return text;
  const size_t exponent = text.find('e');
  if (text[exponent + 2] == '0') text.erase(exponent + 2, 1);  // e-08
  if (text.find('.') == std::string::npos) text.insert(exponent, ".0");
  return text;
}

// Words that a YAML 1.1 reader takes for a boolean. Where text is wanted they are surely a slip, or
// need quotes to mean text elsewhere too.
bool is_yaml11_boolean(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  });
  constexpr std::array<std::string_view, 8> words = {"y",  "n",   "yes",  "no",
                                                     "on", "off", "true", "false"};
  return std::find(words.begin(), words.end(), text) != words.end();
}

// POSIX matching rather than std::regex, whose recursion grows with the text.
bool matches(const std::string& text, const std::string& pattern) {
  regex_t compiled;
  require(regcomp(&compiled, ("^(" + pattern + ")$").c_str(), REG_EXTENDED | REG_NOSUB) == 0,
          "a key's pattern is no regular expression");
  const bool found = regexec(&compiled, text.c_str(), 0, nullptr, 0) == 0;
  regfree(&compiled);
  return found;
}

std::optional<Refusal> set_count(const Field& field, int64_t& slot, const std::string& text,
                                 bool plain) {
  for (const auto& [word, value] : field.words) {
    if (text == word) {
      slot = value;
      return std::nullopt;
    }
  }
  const auto value = plain ? parse_count(text) : std::nullopt;
  if (!value || *value < field.least || *value > field.most || (field.even && *value % 2 != 0)) {
    std::vector<std::string> names;
    for (const auto& word : field.words) names.push_back(word.first);
    return Refusal{field.want(), nearest(text, names).value_or("")};
  }
  slot = *value;
  return std::nullopt;
}

std::optional<Refusal> set_real(const Field& field, double& slot, const std::string& text,
                                bool plain) {
  const auto value = plain ? parse_real(text) : std::nullopt;
  if (!value || *value < field.low || *value > field.high ||
      (field.low_open && *value == field.low) || (field.high_open && *value == field.high)) {
    return Refusal{field.want(), ""};
  }
  slot = *value == 0 ? 0 : *value;  // -0 is 0
  return std::nullopt;
}

std::optional<Refusal> set_flag(const Field& field, bool& slot, const std::string& text,
                                bool plain) {
  if (!plain || (text != "true" && text != "false")) return Refusal{field.want(), ""};
  slot = text == "true";
  return std::nullopt;
}

std::optional<Refusal> set_text(const Field& field, std::string& slot, const std::string& text,
                                bool plain) {
  const bool control =
      std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (control || text.size() > 4096 || invalid_utf8_at(text))
    return Refusal{"text of one line in UTF-8, 4096 bytes at most", ""};
  if (plain && is_yaml11_boolean(text))
    return Refusal{"text; put this word into quotes if it is meant", ""};
  // A text with ${...} is matched once it is complete.
  if (!field.pattern.empty() && text.find("${") == std::string::npos &&
      !matches(text, field.pattern)) {
    return Refusal{field.want(), ""};
  }
  slot = text;
  return std::nullopt;
}

std::optional<Refusal> set_choice(const Field& field, ChoiceSlot& slot, const std::string& text) {
  const auto found = std::find(slot.names.begin(), slot.names.end(), text);
  if (found == slot.names.end())
    return Refusal{field.want(), nearest(text, slot.names).value_or("")};
  slot.set(static_cast<size_t>(found - slot.names.begin()));
  return std::nullopt;
}

std::string count_range(const Field& field) {
  std::string text;
  if (field.most != std::numeric_limits<int64_t>::max()) {
    text = fmt::format("{} to {}", field.least, field.most);
  } else {
    text = fmt::format("at least {}", field.least);
  }
  if (field.even) text += ", even";
  for (const auto& word : field.words) text += ", or `" + word.first + "`";
  return text;
}

std::string real_range(const Field& field) {
  const std::string low =
      fmt::format("{} {}", field.low_open ? "above" : "at least", shortest(field.low));
  if (field.high == std::numeric_limits<double>::infinity()) return low;
  if (!field.low_open && !field.high_open)
    return fmt::format("{} to {}", shortest(field.low), shortest(field.high));
  return fmt::format("{}, {} {}", low, field.high_open ? "below" : "at most", shortest(field.high));
}

}  // namespace

std::string Field::type() const {
  switch (slot.index()) {
    case 0:
      return "count";
    case 1:
      return "real";
    case 2:
      return "true or false";
    case 3:
      return "text";
    default:
      return join(std::get<ChoiceSlot>(slot).names);
  }
}

std::string Field::range() const {
  switch (slot.index()) {
    case 0:
      return count_range(*this);
    case 1:
      return real_range(*this);
    case 3:
      return form;
    default:
      return "";
  }
}

std::string Field::want() const {
  switch (slot.index()) {
    case 0:
      return fmt::format("a count{}{}, {}", unit.empty() ? "" : " of ", unit, range());
    case 1:
      return "a number, " + range();
    case 3:
      return form.empty() ? "text" : form;
    default:
      return type();
  }
}

std::optional<Refusal> Field::set(const std::string& text, bool plain) {
  switch (slot.index()) {
    case 0:
      return set_count(*this, *std::get<int64_t*>(slot), text, plain);
    case 1:
      return set_real(*this, *std::get<double*>(slot), text, plain);
    case 2:
      return set_flag(*this, *std::get<bool*>(slot), text, plain);
    case 3:
      return set_text(*this, *std::get<std::string*>(slot), text, plain);
    default:
      return set_choice(*this, std::get<ChoiceSlot>(slot), text);
  }
}

std::string Field::text() const {
  switch (slot.index()) {
    case 0: {
      const int64_t value = *std::get<int64_t*>(slot);
      for (const auto& [word, meant] : words) {
        if (value == meant) return word;
      }
      return fmt::format("{}", value);
    }
    case 1:
      return shortest(*std::get<double*>(slot));
    case 2:
      return *std::get<bool*>(slot) ? "true" : "false";
    case 3:
      return *std::get<std::string*>(slot);
    default: {
      const auto& choice = std::get<ChoiceSlot>(slot);
      return choice.names[choice.get()];
    }
  }
}

}  // namespace polysketch
