// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace polysketch::test {

/// A fresh folder, removed with its content at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// What a finished process left.
struct ProcessResult {
  int exit_code = -1;  ///< 128 + n if a signal ended it
  std::string out, err;
};

/// Runs a program and waits. `environment` holds NAME=value additions.
ProcessResult run_process(const std::vector<std::string>& command,
                          const std::vector<std::string>& environment = {},
                          const std::filesystem::path& working_directory = {});

/// Path of the built `polysketch` program.
std::filesystem::path program();

/// The folder of the repository's source.
std::filesystem::path source_folder();

/// A folder of real data or golden values beside the repository (`../shared/<name>`), or nothing.
/// `variable`, when set in the environment, names the folder instead. A test that gets nothing
/// skips and says what was missing.
std::optional<std::filesystem::path> shared_folder(const std::string& name,
                                                   const char* variable = nullptr);

void write_text(const std::filesystem::path& path, const std::string& content);
std::string read_text(const std::filesystem::path& path);

}  // namespace polysketch::test
