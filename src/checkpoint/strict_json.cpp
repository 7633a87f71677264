// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/strict_json.hpp"

#include <fmt/format.h>

#include <set>
#include <stdexcept>
#include <vector>

namespace polysketch {

std::string json_object_defect(std::string_view text, std::string_view trailing) {
  if (text.empty() || text.front() != '{') return "does not begin with '{'";
  if (const size_t at = text.find('\0'); at != std::string_view::npos)
    return fmt::format("holds a NUL byte at offset {}", at);
  const size_t last = text.find_last_not_of(trailing);
  if (last == std::string_view::npos || text[last] != '}') return "does not end with '}'";
  return {};
}

nlohmann::json parse_strict_json(std::string_view text) {
  constexpr size_t most_levels = 64;
  if (const std::string defect = json_object_defect(text, " \n"); !defect.empty())
    throw std::invalid_argument(defect);
  std::vector<std::set<std::string>> keys;
  size_t levels = 0;
  // Called for each event while parsing, so that a bad text is left at its first defect.
  const auto check = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (++levels > most_levels)
        throw std::invalid_argument(fmt::format("is nested deeper than {} levels", most_levels));
    }
    if (event == Event::object_end || event == Event::array_end) --levels;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) {
      throw std::invalid_argument(fmt::format("repeats the key '{}'", value.get<std::string>()));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, check);
  } catch (const nlohmann::json::exception& error) {
    std::string reason = error.what();
    // the library's own error number
    if (const size_t end = reason.find("] "); end != std::string::npos) reason.erase(0, end + 2);
    throw std::invalid_argument("is not valid JSON (" + reason + ")");
  }
}

}  // namespace polysketch
