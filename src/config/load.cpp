// SPDX-License-Identifier: Apache-2.0
// What follows once every value is read: ${...}, sizes, rules, sources.
#include "config/load.hpp"

#include <algorithm>

#include "config/loader.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace fs = std::filesystem;

// The text of a key with its own ${...} replaced. `open` holds the keys being expanded, to find
// circles.
std::string Loader::expand(const std::string& path, std::vector<std::string>& open) {
  Field& field = fields_[index_.at(path)];
  const std::string text = field.text();
  if (field.slot.index() != 3) return text;
  const auto origin = origins_.find(path);
  const std::string position = origin == origins_.end() ? "defaults" : origin->second.position;
  open.push_back(path);
  std::string result;
  size_t at = 0;
  for (size_t start = text.find("${"); start != std::string::npos; start = text.find("${", at)) {
    const size_t end = text.find('}', start);
    const std::string key =
        text.substr(start + 2, end == std::string::npos ? end : end - start - 2);
    if (end == std::string::npos || !index_.contains(key)) {
      if (!problems_.is_bad(path))
        problems_.add(position, path, quoted(text), "${section.key} with a known key",
                      nearest(key, paths_).value_or(""));
      break;
    }
    if (std::find(open.begin(), open.end(), key) != open.end()) {
      if (!problems_.is_bad(path))
        problems_.add(position, path, quoted(text), "keys that do not lead back to themselves");
      break;
    }
    result += text.substr(at, start - at) + expand(key, open);
    if (result.size() > 4096) {
      if (!problems_.is_bad(path))
        problems_.add(position, path, quoted(text), "at most 4096 bytes once ${...} is replaced");
      break;
    }
    at = end + 1;
  }
  open.pop_back();
  return result + text.substr(at);
}

void Loader::interpolate() {
  std::map<std::string, std::string> expanded;
  for (const auto& field : fields_) {
    if (field.slot.index() != 3 || field.text().find("${") == std::string::npos) continue;
    std::vector<std::string> open;
    expanded[field.path] = expand(field.path, open);
  }
  for (const auto& [path, text] : expanded) {
    if (problems_.is_bad(path) || text.find("${") != std::string::npos) continue;
    const auto origin = origins_.find(path);
    const bool is_default = origin == origins_.end();
    set(path, text, false, is_default ? Origin{"default", "defaults"} : Origin(origin->second));
    if (is_default) origins_.erase(path);
  }
}

ResolvedConfig Loader::finish() {
  std::map<std::string, std::string> derived;
  resolve_model(config_.model, origins_, derived, problems_);
  interpolate();
  check_rules(config_, origins_, problems_);
  problems_.throw_if_any();
  ResolvedConfig resolved;
  resolved.config = config_;
  for (const auto& path : paths_) {
    const auto from = derived.find(path);
    const auto origin = origins_.find(path);
    const std::string place = origin == origins_.end() ? "default" : origin->second.place;
    resolved.sources.emplace_back(path, from == derived.end() ? place : from->second);
    if (origin != origins_.end() && from == derived.end() &&
        fields_[index_.at(path)].text() != value_text(Config{}, path))
      resolved.changed.push_back(path);
  }
  return resolved;
}

ResolvedConfig resolve_config(const fs::path& path, const std::vector<std::string>& overrides) {
  Loader loader;
  if (!path.empty()) loader.add_file(path);
  for (const auto& text : overrides) loader.add_override(text);
  return loader.finish();
}

Config load_config(const fs::path& path, const std::vector<std::string>& overrides) {
  return resolve_config(path, overrides).config;
}

Config config_from_json(const nlohmann::json& json, const std::vector<std::string>& overrides) {
  Loader loader;
  loader.add_json(json, "");
  for (const auto& text : overrides) loader.add_override(text);
  return loader.finish().config;
}

}  // namespace polysketch
