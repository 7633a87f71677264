// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/keys.hpp"
#include "config/load.hpp"
#include "config/rules.hpp"
#include "config/yaml_reader.hpp"

namespace polysketch {

/// Builds one Config out of files, overrides and JSON, gathering every mistake on the way.
class Loader {
 public:
  Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void add_file(const std::filesystem::path& path);
  void add_override(const std::string& text);
  void add_json(const nlohmann::json& json, const std::string& prefix);
  ResolvedConfig finish();

 private:
  std::vector<std::string> keys_of(const std::string& section) const;
  void add_base(const std::filesystem::path& file, const YamlNode& key, const YamlNode& value);
  void add_map(const YamlNode& map, const std::string& section, const std::string& file);
  void add_value(const YamlNode& key, const YamlNode& value, const std::string& path,
                 const std::string& file);
  void unknown_key(const std::string& position, const std::string& path,
                   const std::string& section);
  bool set(const std::string& path, const std::string& text, bool plain, const Origin& origin);
  void interpolate();
  std::string expand(const std::string& path, std::vector<std::string>& open);

  Config config_;
  std::vector<Field> fields_;
  std::map<std::string, size_t> index_;
  std::vector<std::string> paths_;
  std::set<std::string> sections_;
  std::map<std::string, Origin> origins_;
  Problems problems_;
  std::vector<std::filesystem::path> open_files_;
};

}  // namespace polysketch
