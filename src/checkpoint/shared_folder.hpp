// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/peers.hpp"

namespace polysketch {

/// An empty file with a name that nobody can guess. Rank 0 leaves it in a folder and tells its
/// name; who finds it there sees the same folder, not one of the same path on a disk of its own.
/// Removed at the end of the scope.
class FolderMark {
 public:
  explicit FolderMark(const std::filesystem::path& folder);
  FolderMark(const FolderMark&) = delete;
  ~FolderMark();
  const std::string& name() const { return name_; }

 private:
  std::filesystem::path folder_;
  std::string name_;
};

/// Waits for the mark that rank 0 left in the folder. Throws UserError 73 saying that the two do
/// not share it. `theirs`: what rank 0 calls the folder ("/runs/a on host b").
void find_mark(const std::filesystem::path& folder, const std::string& mark,
               const std::string& theirs, const Peers& peers);

/// The folder as another process is told of it: absolute path and host.
std::string place_of(const std::filesystem::path& folder);

/// Makes sure, on all processes together, that the folder is the same one for all. Throws UserError
/// 73 naming both hosts and paths.
void check_shared(const std::filesystem::path& folder, const Peers& peers);

}  // namespace polysketch
