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

#include "checkpoint/peers.hpp"
#include "checkpoint/tensor_file.hpp"
#include "checkpoint/tensor_set.hpp"
#include "config/config.hpp"

namespace polysketch {

/// The identity card of a checkpoint: manifest.json. A folder without a valid one is not a
/// checkpoint.
// NOLINTNEXTLINE(bugprone-exception-escape): nlohmann's move only throws from an internal assertion
struct Manifest {
  static constexpr int format_version = 1;
  int64_t step = 0;
  std::vector<FileRecord> files;
  nlohmann::json state;  ///< what TrainState holds besides tensors, as one JSON object
  int64_t writers = 1;   ///< processes that saved it together; it loads at any number
};

/// The checkpoints of one run: `<run>/checkpoints/step-00001000/{manifest.json, *.safetensors}`,
/// kept by one process or by several that share a file system. save() and newest_valid() are called
/// by all of them together and end alike on all: same result, or same error. Commit order and
/// fallback (docs/formats.md): written into `step-N.tmp-<id>/`, every file fsynced, manifest
/// last, folder fsynced, one rename, parent fsynced. A crash at any moment leaves the older
/// checkpoints untouched and no half one that looks whole.
class CheckpointStore {
 public:
  CheckpointStore(const std::filesystem::path& run_directory, const CheckpointConfig& config,
                  Peers peers = {});

  /// Saves a checkpoint; all processes call it with the same step and the same tensors (data: those
  /// of write_share). In two phases: rank 0 makes the temporary folder, each process writes its
  /// files there and makes them durable; when all have, rank 0 commits. One failure aborts the save
  /// on all: folder removed, older checkpoints untouched, the same UserError everywhere (74 with
  /// bytes needed and free when space is short, which is asked before anything is written). state:
  /// rank 0's. Returns the bytes of all files.
  uint64_t save(int64_t step, const std::vector<TensorGroup>& groups, const nlohmann::json& state);

  /// What one process does of a save: makes the temporary folder, lets files be written into
  /// directory() (through write_safetensors), then commit() makes the checkpoint visible and
  /// applies retention. Destroying an uncommitted Save removes its folder.
  class Save {
   public:
    Save(CheckpointStore& store, int64_t step);
    ~Save();
    const std::filesystem::path& directory() const { return temporary_; }
    void commit(std::vector<FileRecord> files, nlohmann::json state, int64_t writers = 1);

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

  const Peers& peers() const { return peers_; }

  /// The step whose model is the best so far: with `checkpoint.keep_best` its checkpoint, if there
  /// is one, stays until another step is named.
  void set_best(int64_t step) { best_ = step; }

  /// The newest checkpoint whose files all match their manifest (sizes, then SHA-256), the same on
  /// all processes, each of which verifies its share of the files. Each bad one on the way is named
  /// in a warning (of rank 0) with its defect and the step used instead. Nothing if there are no
  /// checkpoints at all; UserError 81 listing the causes if all are bad.
  std::optional<Loaded> newest_valid() const;

  /// Verifies one checkpoint, on this process alone; throws UserError 81 (or 65) with the defect.
  Loaded verify(const std::filesystem::path& checkpoint) const;

 private:
  friend class Save;
  void apply_retention(int64_t newest);
  std::filesystem::path root_;
  CheckpointConfig config_;
  Peers peers_;
  int64_t best_ = -1;
  mutable std::optional<int64_t> loaded_from_;  ///< retention spares it; newest_valid() sets it
};

/// Exclusive ownership of a run folder (flock on `<run>/lock`, which names pid and host). Of
/// several processes rank 0 owns it for all; they take it together and make sure that they share
/// the folder. Throws UserError 73 naming the owner, or the hosts that do not share it.
class RunLock {
 public:
  explicit RunLock(const std::filesystem::path& run_directory, const Peers& peers = {});
  RunLock(const RunLock&) = delete;
  ~RunLock();

  /// Whether the lock of the folder at this path is still the one that is held: not if somebody has
  /// removed it, or put another folder there.
  bool is_at(const std::filesystem::path& run_directory) const;
  /// Takes back what taking it has changed: the file goes if it was made, else has its old text.
  void undo();

 private:
  void take(const std::filesystem::path& run_directory);
  void release();
  std::filesystem::path path_;
  int fd_ = -1;
  bool made_ = false;   ///< there was no file
  std::string before_;  ///< what the file said
};

}  // namespace polysketch
