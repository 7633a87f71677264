// SPDX-License-Identifier: Apache-2.0
// Files, overrides and JSON into fields.
#include "config/loader.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "config/other_names.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

const char* kind_name(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "nothing";
    case YamlNode::Kind::scalar:
      return "a value";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a group of keys";
  }
  return "something";
}

// A name for "the same file" that does not depend on how the path was written. A pipe (<(...) of a
// shell) has none but its path.
fs::path identity_of(const fs::path& path) {
  std::error_code error;
  const fs::path canonical = fs::weakly_canonical(path, error);
  return error ? path : canonical;
}

}  // namespace

Loader::Loader() : fields_(list_fields(config_)) {
  for (size_t i = 0; i < fields_.size(); ++i) {
    const std::string& path = fields_[i].path;
    index_[path] = i;
    paths_.push_back(path);
    for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1))
      sections_.insert(path.substr(0, dot));
  }
}

// Names directly inside a section ("" is the top), keys and subsections alike.
std::vector<std::string> Loader::keys_of(const std::string& section) const {
  std::vector<std::string> names;
  if (section.empty()) names.push_back("base");
  const std::string prefix = section.empty() ? "" : section + ".";
  for (const auto& path : paths_) {
    if (!path.starts_with(prefix)) continue;
    std::string name = path.substr(prefix.size());
    name = name.substr(0, name.find('.'));
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

void Loader::unknown_key(const std::string& position, const std::string& path,
                         const std::string& section) {
  const std::string name = path.substr(section.empty() ? 0 : section.size() + 1);
  const std::vector<std::string> siblings = keys_of(section);
  std::string hint, note;
  if (const auto theirs = other_name(name.substr(name.rfind('.') + 1))) {
    hint = theirs->key;
    note = theirs->note;
  } else if (const auto sibling = nearest(name, siblings)) {
    hint = section.empty() ? *sibling : section + "." + *sibling;
  } else if (const auto whole = nearest(path, paths_)) {
    hint = *whole;
  } else {  // the right name in the wrong section
    const std::string ending = "." + name.substr(name.rfind('.') + 1);
    const auto found = std::find_if(paths_.begin(), paths_.end(), [&](const std::string& other) {
      return other.ends_with(ending);
    });
    if (found != paths_.end()) hint = *found;
  }
  std::string list;
  for (const auto& sibling : siblings) list += (list.empty() ? "" : ", ") + sibling;
  const std::string shown = quoted(path);
  problems_.add_unknown(position, shown.substr(1, shown.size() - 2), list, hint, note);
}

bool Loader::set(const std::string& path, const std::string& text, bool plain,
                 const Origin& origin) {
  Field& field = fields_[index_.at(path)];
  const auto refusal = field.set(text, plain);
  if (!refusal) {
    origins_[path] = origin;
    return true;
  }
  const bool number = field.slot.index() <= 2;
  problems_.add(origin.position, path, quoted(text) + (number && !plain ? " (text)" : ""),
                refusal->want, refusal->hint);
  return false;
}

void Loader::add_file(const fs::path& path) {
  open_files_.push_back(identity_of(path));
  const std::string name = path.string();
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const fs::path inside = path / "config.yaml";
    throw UserError(ExitCode::usage,
                    fmt::format("{}: is a folder: give a configuration file{}", name,
                                fs::exists(inside, ignored) ? ", such as " + inside.string() : ""));
  }
  std::string text;
  try {
    text = read_file(path, yaml_max_bytes);
  } catch (const UserError& error) {
    if (error.code() != ExitCode::bad_data) throw;
    throw UserError(ExitCode::config,
                    fmt::format("{}:1:1: larger than {} bytes; this is no configuration", name,
                                yaml_max_bytes));
  }
  const YamlNode root = parse_yaml(text, name);
  if (root.kind != YamlNode::Kind::map) {
    throw UserError(ExitCode::config,
                    fmt::format("{}:{}:{}: got {}, want keys, for example 'model: {{size: small}}'",
                                name, root.line, root.column, kind_name(root)));
  }
  for (size_t i = 0; i < root.children.size(); i += 2) {
    const YamlNode& key = root.children[i];
    if (key.kind == YamlNode::Kind::scalar && key.text == "base") {
      add_base(path, key, root.children[i + 1]);
      break;
    }
  }
  add_map(root, "", name);
  open_files_.pop_back();
}

void Loader::add_base(const fs::path& file, const YamlNode& key, const YamlNode& value) {
  const std::string position = fmt::format("{}:{}:{}", file.string(), key.line, key.column);
  const std::string want = "the path of a configuration, relative to this file";
  if (value.kind != YamlNode::Kind::scalar || value.text.empty()) {
    problems_.add(position, "base", kind_name(value), want);
    return;
  }
  const fs::path base = (file.parent_path() / value.text).lexically_normal();
  std::error_code error;
  if (!fs::exists(base, error) || fs::is_directory(base, error)) {
    problems_.add(position, "base",
                  quoted(value.text) +
                      (fs::is_directory(base, error) ? ", a folder" : ", which does not exist"),
                  want);
  } else if (std::find(open_files_.begin(), open_files_.end(), identity_of(base)) !=
             open_files_.end()) {
    problems_.add(position, "base", quoted(value.text) + ", which leads back here",
                  "a chain of files that ends");
  } else if (open_files_.size() >= 32) {
    problems_.add(position, "base", "the 32nd file in a row", "a shorter chain of files");
  } else {
    add_file(base);
  }
}

void Loader::add_map(const YamlNode& map, const std::string& section, const std::string& file) {
  std::map<std::string, int> seen;
  for (size_t i = 0; i < map.children.size(); i += 2) {
    const YamlNode& key = map.children[i];
    const YamlNode& value = map.children[i + 1];
    const std::string position = fmt::format("{}:{}:{}", file, key.line, key.column);
    if (key.kind != YamlNode::Kind::scalar) {
      problems_.add(position, section.empty() ? "top level" : section, kind_name(key),
                    "a name before the colon");
      continue;
    }
    const std::string path = section.empty() ? key.text : section + "." + key.text;
    if (const auto [earlier, is_new] = seen.emplace(key.text, key.line); !is_new) {
      const std::string shown = quoted(path);
      problems_.add(position, shown.substr(1, shown.size() - 2), "this key again",
                    fmt::format("it once; the first is in line {}", earlier->second));
      continue;
    }
    if (section.empty() && key.text == "base") continue;
    const bool dotted = key.text.find('.') != std::string::npos;
    if (!dotted && sections_.contains(path)) {
      if (value.kind == YamlNode::Kind::map) {
        add_map(value, path, file);
      } else {
        std::string names;
        for (const auto& name : keys_of(path)) names += (names.empty() ? "" : ", ") + name;
        problems_.add(position, path,
                      value.kind == YamlNode::Kind::scalar ? quoted(value.text) : kind_name(value),
                      "some of its keys: " + names);
      }
    } else if (!dotted && index_.contains(path)) {
      add_value(key, value, path, file);
    } else if (index_.contains(path)) {
      problems_.add(position, path, "dots in a key",
                    "each part on a level of its own, for example 'model: {size: small}'");
    } else {
      unknown_key(position, path, section);
    }
  }
}

void Loader::add_value(const YamlNode& key, const YamlNode& value, const std::string& path,
                       const std::string& file) {
  const YamlNode& place = value.kind == YamlNode::Kind::scalar ? value : key;
  const Origin origin{fmt::format("{}:{}", file, place.line),
                      fmt::format("{}:{}:{}", file, place.line, place.column)};
  if (value.kind != YamlNode::Kind::scalar) {
    problems_.add(origin.position, path, kind_name(value), fields_[index_.at(path)].want());
    return;
  }
  set(path, value.text, value.plain, origin);
}

void Loader::add_override(const std::string& text) {
  const Origin origin{"--set", "--set"};
  const size_t equals = text.find('=');
  const std::string path = text.substr(0, equals);
  if (equals == std::string::npos) {
    problems_.add(origin.position, quoted(text), "no '='",
                  "key=value, for example training.steps=1k");
  } else if (index_.contains(path)) {
    // The shell has taken the quotes away, so a word is never a boolean by accident here.
    const bool is_text = fields_[index_.at(path)].slot.index() == 3;
    set(path, text.substr(equals + 1), !is_text, origin);
  } else if (sections_.contains(path)) {
    std::string names;
    for (const auto& name : keys_of(path)) names += (names.empty() ? "" : ", ") + name;
    problems_.add(origin.position, path, quoted(text.substr(equals + 1)),
                  "one of its keys: " + names);
  } else {
    size_t dot = path.rfind('.');
    while (dot != std::string::npos && !sections_.contains(path.substr(0, dot)))
      dot = dot == 0 ? std::string::npos : path.rfind('.', dot - 1);
    unknown_key(origin.position, path, dot == std::string::npos ? "" : path.substr(0, dot));
  }
}

void Loader::add_json(const nlohmann::json& json, const std::string& section) {
  const Origin origin{"json", "json"};
  if (!json.is_object()) {
    problems_.add(origin.position, section.empty() ? "configuration" : section, json.type_name(),
                  "an object");
    return;
  }
  for (const auto& [name, value] : json.items()) {
    const std::string path = section.empty() ? name : section + "." + name;
    if (name.find('.') == std::string::npos && sections_.contains(path)) {
      add_json(value, path);
    } else if (name.find('.') == std::string::npos && index_.contains(path)) {
      Field& field = fields_[index_.at(path)];
      const size_t kind = field.slot.index();
      const bool fits = kind == 0   ? value.is_number_integer()
                        : kind == 1 ? value.is_number()
                        : kind == 2 ? value.is_boolean()
                                    : value.is_string();
      if (fits) {
        set(path, value.is_string() ? value.get<std::string>() : value.dump(), kind != 3, origin);
      } else {
        problems_.add(origin.position, path, value.type_name(), field.want());
      }
    } else {
      unknown_key(origin.position, path, section);
    }
  }
}

}  // namespace polysketch
