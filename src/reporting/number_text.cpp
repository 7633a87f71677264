// SPDX-License-Identifier: Apache-2.0
#include "reporting/number_text.hpp"

#include <fmt/format.h>

#include <cmath>

#include "support/units.hpp"

namespace polysketch {

std::string group_digits(int64_t value) {
  std::string text = fmt::format("{}", value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first + 3;) text.insert(at -= 3, ",");
  return text;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  const double magnitude = std::abs(value);
  if (magnitude >= 99'999.5 || (magnitude > 0 && magnitude < 0.001))
    return fmt::format("{:.2e}", value);
  if (magnitude >= 999.5) return group_digits(std::llround(value));
  const int decimals = magnitude >= 99.95                      ? 0
                       : magnitude >= 9.995                    ? 1
                       : magnitude >= 0.9995 || magnitude == 0 ? 2
                                                               : 3;
  return fmt::format("{:.{}f}", value, decimals);
}

std::string short_tokens(int64_t tokens) {
  std::string text = format_count(tokens);
  if (text.back() == 'G') text.back() = 'B';  // of tokens people say billions
  return text;
}

std::string short_rate(double per_second) {
  if (!std::isfinite(per_second) || per_second < 1000) return short_number(per_second);
  return format_count(std::llround(per_second));
}

}  // namespace polysketch
