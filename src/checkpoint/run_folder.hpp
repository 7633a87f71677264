// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/peers.hpp"

namespace polysketch {

/// The folder of a run from the first look at it to the last save. What a start changes in it is
/// taken back unless keep() is called: a command that is refused leaves no trace, neither a new
/// folder nor a rewritten file.
///
/// Of several processes rank 0 owns it for all; the constructor, take() and place() are called by
/// all of them together and end alike on all.
class RunFolder {
 public:
  /// Takes a folder that exists (RunLock); one that does not is left alone until take(). Throws
  /// UserError 73 or 77.
  RunFolder(std::filesystem::path path, Peers peers);
  RunFolder(const RunFolder&) = delete;
  ~RunFolder();

  bool taken() const { return taken_; }
  /// Makes the folder, with its parents, and takes it. Nothing if it is taken already.
  void take();
  /// The start has succeeded: what it made stays.
  void keep() { kept_ = true; }

  /// Where the folder is now. Somebody may have renamed it while the run trains: it is followed
  /// then. Somebody may have removed it, or emptied it, and even have started another run under
  /// its name: then this is nothing, and nothing may be written there any more.
  std::optional<std::filesystem::path> place() const;

 private:
  std::optional<std::filesystem::path> look() const;
  void own();
  void give_back();

  std::filesystem::path path_;
  Peers peers_;
  bool taken_ = false, kept_ = false;
  std::vector<std::filesystem::path> made_;  // folders, outermost first; rank 0
  std::unique_ptr<RunLock> lock_;
  int folder_ = -1;  // descriptor; rank 0
};

/// Refuses a folder in which a run would write over, or wait for, what is not a run's: somebody
/// else's config.yaml, run.json or metrics.jsonl; a pipe or a folder under the name of a
/// file of a run. A folder with checkpoints is a run's. Throws UserError 73.
void require_run_files(const std::filesystem::path& run_directory);

/// A name beside the folder that nothing has yet: where the state of a run goes whose folder was
/// removed.
std::filesystem::path rescue_folder(const std::filesystem::path& run_directory);

}  // namespace polysketch
