// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "config/keys.hpp"
#include "config/load.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch::test {

/// The lines of the error that loading gives; empty if it loads. Any error but UserError 78 is a
/// failure.
inline std::vector<std::string> load_errors(const std::filesystem::path& path,
                                            const std::vector<std::string>& overrides = {}) {
  try {
    load_config(path, overrides);
    return {};
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::config) << error.what();
    std::vector<std::string> lines;
    const std::string text = error.what();
    for (size_t start = 0; start <= text.size();) {
      const size_t end = std::min(text.find('\n', start), text.size());
      lines.push_back(text.substr(start, end - start));
      start = end + 1;
    }
    return lines;
  }
}

/// The one error of a file with this content, or several joined with " & ".
inline std::string error_of(const std::string& yaml,
                            const std::vector<std::string>& overrides = {}) {
  const TemporaryFolder folder;
  write_text(folder / "c.yaml", yaml);
  std::string joined;
  for (std::string line : load_errors(folder / "c.yaml", overrides)) {
    const size_t at = line.find(folder.path().string() + "/");
    if (at != std::string::npos) line.erase(at, folder.path().string().size() + 1);
    joined += (joined.empty() ? "" : " & ") + line;
  }
  return joined;
}

inline std::vector<std::string> all_paths() {
  Config config;
  std::vector<std::string> paths;
  for (const auto& field : list_fields(config)) paths.push_back(field.path);
  return paths;
}

/// `a.b.c` and a scalar as nested YAML.
inline std::string nested_yaml(const std::string& path, const std::string& scalar) {
  std::string yaml;
  int level = 0;
  size_t start = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos;
       dot = path.find('.', start), ++level) {
    yaml +=
        std::string(static_cast<size_t>(2 * level), ' ') + path.substr(start, dot - start) + ":\n";
    start = dot + 1;
  }
  return yaml + std::string(static_cast<size_t>(2 * level), ' ') + path.substr(start) + ": " +
         scalar + "\n";
}

}  // namespace polysketch::test
