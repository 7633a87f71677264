// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace polysketch {

/// A YAML document as a plain tree: no sharing, no cycles, since anchors and aliases never get this
/// far.
struct YamlNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  int line = 1, column = 1;        ///< from 1
  std::string text;                ///< of a scalar
  bool plain = true;               ///< scalar without quotes and not tagged as text
  std::vector<YamlNode> children;  ///< of a list; of a map: key, value, key, value …
};

/// Limits that keep a hostile file from hurting, far above any real configuration.
constexpr size_t yaml_max_bytes = size_t{1} << 20;
constexpr int yaml_max_depth = 32;
constexpr int yaml_max_nodes = 10'000;

/// Parses one document. Throws UserError 78, `name:line:column: what`, for bytes that are no UTF-8
/// text (a byte order mark of UTF-8 is passed over), an empty file, bad syntax, anchors, aliases,
/// merge keys, tags outside the core schema, too deep, too many nodes or more than one document.
/// The tree is built from parser events, so a limit stops the parse itself.
YamlNode parse_yaml(std::string_view text, const std::string& name);

}  // namespace polysketch
