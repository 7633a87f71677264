// SPDX-License-Identifier: Apache-2.0
#include "launch/slurm_lists.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace polysketch {
namespace {

constexpr int64_t kMostMachines = 1'000'000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || !is_digit(text.front()) || error != std::errc() || rest != end)
    return std::nullopt;
  return value;
}

/// Pieces between the commas that stand outside of brackets; nothing if brackets do not match or
/// nest.
std::optional<std::vector<std::string_view>> split(std::string_view text) {
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  bool inside = false;
  for (size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ',';
    if (c == '[' || c == ']') {
      if (inside == (c == '[')) return std::nullopt;
      inside = !inside;
    }
    if (c != ',' || (inside && i < text.size())) continue;
    if (inside || i == begin) return std::nullopt;
    pieces.push_back(text.substr(begin, i - begin));
    begin = i + 1;
  }
  return pieces;
}

/// `01-03,07` -> 01 02 03 07, at most `most`.
std::optional<std::vector<std::string>> expand_bracket(std::string_view inside, size_t most) {
  std::vector<std::string> all;
  const auto ranges = split(inside);
  if (!ranges) return std::nullopt;
  for (const std::string_view range : *ranges) {
    const size_t dash = range.find('-');
    const std::string_view low_text = range.substr(0, dash);
    const auto low = number(low_text),
               high = dash == std::string_view::npos ? low : number(range.substr(dash + 1));
    if (!low || !high || *low > *high) return std::nullopt;
    for (int64_t n = *low; n <= *high && all.size() < most; ++n)
      all.push_back(fmt::format("{:0{}}", n, low_text.size()));
  }
  return all;
}

bool is_name(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_';
  });
}

std::optional<std::vector<std::string>> expand_word(std::string_view word, size_t most) {
  const size_t open = word.find('[');
  const std::string_view head = word.substr(0, open);
  if (!is_name(head)) return std::nullopt;
  if (open == std::string_view::npos) return std::vector<std::string>{std::string(head)};
  const size_t close = word.find(']', open);
  const auto middles = expand_bracket(word.substr(open + 1, close - open - 1), most);
  const auto tails = expand_word(word.substr(close + 1), most);
  if (!middles || !tails) return std::nullopt;
  std::vector<std::string> all;
  for (const std::string& middle : *middles) {
    for (const std::string& tail : *tails) {
      if (all.size() < most) all.push_back(std::string(head) + middle + tail);
    }
  }
  return all;
}

}  // namespace

std::optional<std::vector<std::string>> expand_host_list(std::string_view list, size_t most) {
  const auto words = split(list);
  if (!words) return std::nullopt;
  std::vector<std::string> hosts;
  for (const std::string_view word : *words) {
    const auto some = expand_word(word, most - hosts.size());
    if (!some) return std::nullopt;
    hosts.insert(hosts.end(), some->begin(), some->end());
  }
  if (hosts.size() > most) hosts.resize(most);  // every word was read, to know that it is right
  return hosts;
}

std::optional<std::vector<int64_t>> expand_task_counts(std::string_view list) {
  const auto words = split(list);
  if (!words) return std::nullopt;
  std::vector<int64_t> counts;
  for (const std::string_view word : *words) {
    const size_t open = word.find("(x");
    if (open != std::string_view::npos && !word.ends_with(')')) return std::nullopt;
    const auto tasks = number(word.substr(0, open));
    const auto machines = open == std::string_view::npos
                              ? std::optional<int64_t>(1)
                              : number(word.substr(open + 2, word.size() - open - 3));
    if (!tasks || !machines || *machines > kMostMachines - static_cast<int64_t>(counts.size()))
      return std::nullopt;
    counts.insert(counts.end(), static_cast<size_t>(*machines), *tasks);
  }
  return counts;
}

}  // namespace polysketch
