// SPDX-License-Identifier: Apache-2.0
#include "support/checked_numbers.hpp"

#include <fmt/format.h>

#include <optional>

#include "support/error.hpp"
#include "support/text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

constexpr double fastest = 1e18;  // beyond what any link carries; keeps sums and quotients finite

[[noreturn]] void refuse(std::string_view option, const std::string& text,
                         const std::string& wanted) {
  throw UserError(ExitCode::usage,
                  fmt::format("{}: got {}, want {}", option, quoted(text), wanted));
}

std::string count_range(int64_t least, int64_t most) {
  return most == std::numeric_limits<int64_t>::max() ? fmt::format("at least {}", least)
                                                     : fmt::format("{} to {}", least, most);
}

std::optional<int64_t> count_within(const std::string& text, int64_t least, int64_t most) {
  const auto value = parse_count(text);
  return value && *value >= least && *value <= most ? value : std::nullopt;
}

std::string short_time(double seconds) {
  return seconds >= 86400 ? fmt::format("{:g}d", seconds / 86400) : fmt::format("{:g}s", seconds);
}

}  // namespace

int64_t checked_count(std::string_view option, const std::string& text, int64_t least,
                      int64_t most) {
  const auto value = count_within(text, least, most);
  if (!value) {
    const bool too_large = text.size() > 18 && text.find_first_not_of("0123456789") == text.npos;
    refuse(option, text,
           fmt::format(
               "a count, {}{} (10k, 1Mi, ...)", count_range(least, most),
               too_large && most == std::numeric_limits<int64_t>::max() ? ", below 2^63" : ""));
  }
  return *value;
}

std::vector<int64_t> checked_counts(std::string_view option, const std::string& text, int64_t least,
                                    int64_t most) {
  std::vector<int64_t> values;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    const auto value = count_within(word, least, most);
    if (!value) {
      refuse(
          option, word,
          fmt::format("counts, {}, with commas between, like 512,4Ki", count_range(least, most)));
    }
    values.push_back(*value);
    begin = end + 1;
  }
  return values;
}

double checked_real(std::string_view option, const std::string& text, double least, double most) {
  const auto value = parse_real(text);
  if (!value || *value < least || *value > most)
    refuse(option, text, fmt::format("a number, {:g} to {:g}", least, most));
  return *value == 0 ? 0 : *value;  // -0 is 0
}

double checked_speed(std::string_view option, const std::string& text) {
  auto value = parse_real(text);
  if (const auto count = parse_count(text); !value && count) value = static_cast<double>(*count);
  if (!value || *value <= 0 || *value > fastest)
    refuse(option, text, "a number above 0, like 5987.25 or 400k");
  return *value;
}

double checked_duration(std::string_view option, const std::string& text, double least, double most,
                        bool bare) {
  auto value = parse_duration(text);
  if (!value && bare) value = parse_real(text);
  if (!value || !(*value >= least && *value <= most)) {
    refuse(option, text,
           fmt::format("a time, {} to {} (250ms, 30s, 10min, 2h{})", short_time(least),
                       short_time(most), bare ? "; a number alone is seconds" : ""));
  }
  return *value;
}

double checked_bandwidth(std::string_view option, const std::string& text) {
  const auto value = parse_bandwidth(text);
  if (!value || *value > fastest)
    refuse(option, text, "bits or bytes a second, like 400Gb or 50GB");
  return *value;
}

}  // namespace polysketch
