// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/config.hpp"
#include "config/keys.hpp"

namespace polysketch {

/// Reads a configuration: the file's `base:` first (relative to the file, recursively), then the
/// file, then `key.path=value` overrides in order; a later value wins. Then `${section.key}` is
/// replaced in text values, sizes are resolved (model.size -> numbers) and cross-field rules are
/// checked.
///
/// Throws UserError 78 with ALL errors, one per line, as `file:line:col: key: got X, want Y; did
/// you mean 'Z'?`; overrides are named `--set`. Throws 66 if the file is missing. An empty path
/// means defaults and overrides only.
Config load_config(const std::filesystem::path& path,
                   const std::vector<std::string>& overrides = {});

/// Where each value came from, keyed by dotted key: "default", "model.size small",
/// "configs/x.yaml:12", "--set".
struct ResolvedConfig {
  Config config;
  std::vector<std::pair<std::string, std::string>> sources;
  /// keys that files and overrides gave another value than the default, in order
  std::vector<std::string> changed;
};
ResolvedConfig resolve_config(const std::filesystem::path& path,
                              const std::vector<std::string>& overrides = {});

/// The whole configuration as YAML (every key, in order), readable by load_config. With sources: as
/// comments.
std::string to_yaml(const Config& config);
std::string to_yaml(const ResolvedConfig& resolved);
/// What differs from the defaults: the shortest file that means the same.
std::string changed_to_yaml(const ResolvedConfig& resolved);
nlohmann::ordered_json to_json(const Config& config);
nlohmann::ordered_json changed_to_json(const ResolvedConfig& resolved);
/// From what to_json wrote (a checkpoint's manifest), with overrides as in load_config. Strict like
/// the YAML reader.
Config config_from_json(const nlohmann::json& json, const std::vector<std::string>& overrides = {});

/// JSON schema (draft 2020-12) of a configuration file, for editors.
nlohmann::ordered_json config_schema();

/// All keys as Markdown: for each section an example and a table of key, type, default, range,
/// what a change means on continuing, and meaning. docs/configuration.md is this.
std::string config_reference();

struct ConfigChange {
  std::string key;
  std::string text;  ///< `key: a -> b`
  Effect effect;
};
/// Keys whose values differ.
std::vector<ConfigChange> config_changes(const Config& a, const Config& b);
/// The same as text alone.
std::vector<std::string> config_difference(const Config& a, const Config& b);

}  // namespace polysketch
