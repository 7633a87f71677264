// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoint/tensor_file.hpp"
#include "config/config.hpp"

namespace polysketch {

/// The identity card of a checkpoint: manifest.json. A folder without a valid one is not a checkpoint.
// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann's move only throws from an internal assertion
struct Manifest {
  static constexpr int format_version = 1;
  int64_t step = 0;
  std::vector<FileRecord> files;
  nlohmann::json state;  ///< what TrainState holds besides tensors, as one JSON object
};

/// The checkpoints of one run: `<run>/checkpoints/step-00001000/{manifest.json, *.safetensors}`.
/// Commit order and fallback follow reliability §2: written into `step-N.tmp-<id>/`, every file fsynced, manifest last, folder fsynced, one
/// rename, parent fsynced. A crash at any moment leaves the older checkpoints untouched and no half one that looks whole.
class CheckpointStore {
 public:
  CheckpointStore(const std::filesystem::path& run_directory, const CheckpointConfig& config);

  /// One save at a time: begin() makes the temporary folder, the caller writes files into directory() (through write_safetensors), then
  /// commit() makes the checkpoint visible and applies retention. Destroying an uncommitted Save removes its folder.
  class Save {
   public:
    Save(CheckpointStore& store, int64_t step);
    ~Save();
    const std::filesystem::path& directory() const { return temporary_; }
    void commit(std::vector<FileRecord> files, nlohmann::json state);

   private:
    CheckpointStore& store_;
    int64_t step_;
    std::filesystem::path temporary_;
    bool committed_ = false;
  };

  struct Loaded {
    int64_t step = 0;
    std::filesystem::path directory;
    Manifest manifest;
  };

  std::vector<int64_t> steps() const;  ///< committed ones, ascending, by name (not verified)
  std::filesystem::path path_of(int64_t step) const;

  /// The newest checkpoint whose files all match their manifest (sizes, then SHA-256). Each bad one on the way is named in a warning with
  /// its defect and the step used instead. Nothing if there are no checkpoints at all; UserError 81 listing the causes if all are bad.
  std::optional<Loaded> newest_valid() const;

  /// Verifies one checkpoint; throws UserError 81 (or 65) with the defect.
  Loaded verify(const std::filesystem::path& checkpoint) const;

 private:
  friend class Save;
  void apply_retention(int64_t newest);
  std::filesystem::path root_;
  CheckpointConfig config_;
  mutable std::optional<int64_t> loaded_from_;  ///< retention spares it; newest_valid() sets it
};

/// Exclusive ownership of a run folder (flock on `<run>/lock`, which names pid and host). Throws UserError 73 naming the owner.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& run_directory);
  RunLock(const RunLock&) = delete;
  ~RunLock();

 private:
  int fd_ = -1;
};

}  // namespace polysketch
