// SPDX-License-Identifier: Apache-2.0
// A configuration back into text: YAML, JSON, and what differs between two.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "config/keys.hpp"
#include "config/load.hpp"
#include "support/error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

// Text without quotes only where no YAML reader could take it for anything but text.
std::string yaml_text(const std::string& text) {
  const auto safe = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' ||
           c == '_' || c == '.' || c == '-';
  };
  const bool starts_as_word =
      !text.empty() &&
      ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '/');
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  });
  const std::vector<std::string> reserved = {"y",   "n",    "yes",   "no",  "on",
                                             "off", "true", "false", "null"};
  const bool plain = starts_as_word && std::all_of(text.begin(), text.end(), safe) &&
                     std::find(reserved.begin(), reserved.end(), lower) == reserved.end();
  return plain ? text : nlohmann::json(text).dump();
}

// Of the functions below: `only` the keys to write, nullptr: all.
bool is_wanted(const std::string& path, const std::vector<std::string>* only) {
  return only == nullptr || std::find(only->begin(), only->end(), path) != only->end();
}

std::string write_yaml(Config config, const std::map<std::string, std::string>& sources,
                       const std::vector<std::string>* only = nullptr) {
  std::string yaml;
  std::vector<std::string> section;
  for (const auto& field : list_fields(config)) {
    if (!is_wanted(field.path, only)) continue;
    std::vector<std::string> parts;
    for (size_t start = 0; start <= field.path.size();) {
      const size_t dot = std::min(field.path.find('.', start), field.path.size());
      parts.push_back(field.path.substr(start, dot - start));
      start = dot + 1;
    }
    const std::string name = parts.back();
    parts.pop_back();
    size_t common = 0;
    while (common < parts.size() && common < section.size() && parts[common] == section[common])
      ++common;
    for (size_t level = common; level < parts.size(); ++level)
      yaml += std::string(2 * level, ' ') + parts[level] + ":\n";
    section = parts;
    const std::string value = field.slot.index() == 3 ? yaml_text(field.text()) : field.text();
    const auto source = sources.find(field.path);
    yaml += fmt::format("{}{}: {}{}\n", std::string(2 * parts.size(), ' '), name, value,
                        source == sources.end() ? "" : "  # " + source->second);
  }
  return yaml;
}

// A file's name may hold a line break; a comment may not.
std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

std::map<std::string, std::string> comments_of(const ResolvedConfig& resolved) {
  std::map<std::string, std::string> sources;
  for (const auto& [path, source] : resolved.sources) sources[path] = one_line(source);
  return sources;
}

nlohmann::ordered_json write_json(Config config, const std::vector<std::string>* only = nullptr) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& field : list_fields(config)) {
    if (!is_wanted(field.path, only)) continue;
    nlohmann::ordered_json* place = &json;
    for (size_t start = 0; start <= field.path.size();) {
      const size_t dot = std::min(field.path.find('.', start), field.path.size());
      place = &(*place)[field.path.substr(start, dot - start)];
      start = dot + 1;
    }
    switch (field.slot.index()) {
      case 0:
        *place = *std::get<int64_t*>(field.slot);
        break;
      case 1:
        *place = *std::get<double*>(field.slot);
        break;
      case 2:
        *place = *std::get<bool*>(field.slot);
        break;
      default:
        *place = field.text();
    }
  }
  return json;
}

}  // namespace

std::string to_yaml(const Config& config) { return write_yaml(config, {}); }

std::string to_yaml(const ResolvedConfig& resolved) {
  return write_yaml(resolved.config, comments_of(resolved));
}

std::string changed_to_yaml(const ResolvedConfig& resolved) {
  if (resolved.changed.empty()) return "{}  # nothing differs from the defaults\n";
  return write_yaml(resolved.config, comments_of(resolved), &resolved.changed);
}

nlohmann::ordered_json to_json(const Config& config) { return write_json(config); }

nlohmann::ordered_json changed_to_json(const ResolvedConfig& resolved) {
  return write_json(resolved.config, &resolved.changed);
}

std::vector<ConfigChange> config_changes(const Config& a, const Config& b) {
  Config first = a, second = b;
  const auto left = list_fields(first), right = list_fields(second);
  std::vector<ConfigChange> changes;
  for (size_t i = 0; i < left.size(); ++i) {
    const std::string before = left[i].text(), after = right[i].text();
    if (before == after) continue;
    changes.push_back(
        {left[i].path, fmt::format("{}: {} -> {}", left[i].path, before, after), left[i].effect});
  }
  return changes;
}

std::vector<std::string> config_difference(const Config& a, const Config& b) {
  std::vector<std::string> lines;
  for (ConfigChange& change : config_changes(a, b)) lines.push_back(std::move(change.text));
  return lines;
}

}  // namespace polysketch
