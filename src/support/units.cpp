// SPDX-License-Identifier: Apache-2.0
#include "support/units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

namespace polysketch {
namespace {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }

constexpr std::array<std::pair<std::string_view, int64_t>, 9> count_suffixes = {
    {{"", 1},
     {"k", 1'000},
     {"M", 1'000'000},
     {"G", 1'000'000'000},
     {"T", 1'000'000'000'000},
     {"Ki", int64_t{1} << 10},
     {"Mi", int64_t{1} << 20},
     {"Gi", int64_t{1} << 30},
     {"Ti", int64_t{1} << 40}}};

// Digits with single underscores between them, moved from `text` to `digits`. False if an
// underscore stands elsewhere.
bool take_digits(std::string_view& text, std::string& digits) {
  bool after_digit = false;
  while (!text.empty() && (is_digit(text.front()) || text.front() == '_')) {
    if (text.front() == '_') {
      if (!after_digit || text.size() < 2 || !is_digit(text[1])) return false;
    } else {
      digits += text.front();
    }
    after_digit = text.front() != '_';
    text.remove_prefix(1);
  }
  return true;
}

// mantissa * 10^exponent * factor, if that is whole and fits in 63 bits.
std::optional<int64_t> scaled(std::string_view mantissa, int exponent, int64_t factor) {
  using Wide = unsigned __int128;
  constexpr Wide limit = Wide{1} << 100;
  while (mantissa.size() > 1 && mantissa.front() == '0') mantissa.remove_prefix(1);
  if (mantissa == "0") return 0;
  if (mantissa.size() > 27) return std::nullopt;
  Wide value = 0;
  for (const char c : mantissa) value = value * 10 + static_cast<Wide>(c - '0');
  if (value > limit / static_cast<Wide>(factor)) return std::nullopt;
  value *= static_cast<Wide>(factor);
  for (; exponent > 0; --exponent) {
    if (value > limit / 10) return std::nullopt;
    value *= 10;
  }
  for (; exponent < 0; ++exponent) {
    if (value % 10 != 0) return std::nullopt;
    value /= 10;
  }
  if (value > static_cast<Wide>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(value);
}

std::string three_digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

}  // namespace

std::optional<int64_t> parse_count(std::string_view text) {
  std::string digits;
  if (text.empty() || !is_digit(text.front()) || !take_digits(text, digits)) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  int exponent = 0;
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    const size_t before = digits.size();
    if (!take_digits(text, digits) || digits.size() == before) return std::nullopt;
    exponent = -static_cast<int>(digits.size() - before);
  }
  if (!text.empty() && (text.front() == 'e' || text.front() == 'E')) {
    text.remove_prefix(1);
    if (!text.empty() && text.front() == '+') text.remove_prefix(1);
    int power = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), power);
    if (error != std::errc{} || end != text.data() + text.size() || power > 100 || power < -100)
      return std::nullopt;
    return scaled(digits, exponent + power, 1);
  }
  for (const auto& [suffix, factor] : count_suffixes) {
    if (text == suffix) return scaled(digits, exponent, factor);
  }
  return std::nullopt;
}

std::optional<double> parse_real(std::string_view text) {
  std::string_view unsigned_text = text;
  if (!unsigned_text.empty() && unsigned_text.front() == '-') unsigned_text.remove_prefix(1);
  // inf, nan
  if (unsigned_text.empty() || !(is_digit(unsigned_text.front()) || unsigned_text.front() == '.'))
    return std::nullopt;
  if (unsigned_text.size() > 1 && unsigned_text[0] == '0' && is_digit(unsigned_text[1]))
    return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

std::optional<double> parse_duration(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 6> units = {
      {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}}};
  const size_t digits = text.find_first_not_of("0123456789.");
  if (digits == 0 || digits == std::string_view::npos) return std::nullopt;
  const auto number = parse_real(text.substr(0, digits));
  if (!number) return std::nullopt;
  for (const auto& [unit, seconds] : units) {
    if (text.substr(digits) == unit) return *number * seconds;
  }
  return std::nullopt;
}

std::optional<double> parse_bandwidth(std::string_view text) {
  if (text.ends_with("/s")) text.remove_suffix(2);
  if (text.empty() || (text.back() != 'b' && text.back() != 'B')) return std::nullopt;
  const double divisor = text.back() == 'b' ? 8 : 1;
  text.remove_suffix(1);
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto number = parse_real(text.substr(0, digits));
  if (!number || *number <= 0) return std::nullopt;
  for (const auto& [prefix, factor] : count_suffixes) {
    if (text.substr(digits) == prefix) return *number * static_cast<double>(factor) / divisor;
  }
  return std::nullopt;
}

std::string format_count(int64_t value) {
  const double magnitude = std::abs(static_cast<double>(value));
  if (magnitude < 1000) return fmt::format("{}", value);
  double scaled_value = magnitude / 1e3;
  size_t unit = 0;
  for (; scaled_value >= 999.5 && unit < 3; ++unit) scaled_value /= 1e3;
  return fmt::format("{}{}{}", value < 0 ? "-" : "", three_digits(scaled_value), "kMGT"[unit]);
}

std::string format_bytes(int64_t bytes) {
  const double magnitude = std::abs(static_cast<double>(bytes));
  if (magnitude < 1024) return fmt::format("{} B", bytes);
  double scaled_value = magnitude / 1024;
  size_t unit = 0;
  for (; scaled_value >= 1023.5 && unit < 5; ++unit) scaled_value /= 1024;
  return fmt::format("{}{} {}iB", bytes < 0 ? "-" : "", three_digits(scaled_value), "KMGTPE"[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || std::abs(seconds) > 1e15) return "?";
  const auto whole = static_cast<int64_t>(std::llround(std::abs(seconds)));
  const int64_t days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60,
                rest = whole % 60;
  std::string text = seconds < 0 && whole > 0 ? "-" : "";
  if (days > 0) text += fmt::format("{}d ", days);
  if (days > 0 || hours > 0) return text + fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return text + fmt::format("{}:{:02}", minutes, rest);
}

std::string format_bandwidth(double bytes_per_second) {
  if (!std::isfinite(bytes_per_second)) return "unlimited";
  constexpr std::array<const char*, 5> units = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (; bytes_per_second >= 999.5 && unit + 1 < units.size(); ++unit) bytes_per_second /= 1000;
  return fmt::format("{} {}/s", three_digits(bytes_per_second), units[unit]);
}

std::string format_moment(double seconds) {
  if (seconds == 0) return "0 ms";
  if (seconds < 0.99995e-3) return fmt::format("{} us", three_digits(seconds * 1e6));
  if (seconds < 0.9995) return fmt::format("{} ms", three_digits(seconds * 1e3));
  return fmt::format("{} s", three_digits(seconds));
}

}  // namespace polysketch
