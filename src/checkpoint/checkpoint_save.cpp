// SPDX-License-Identifier: Apache-2.0
// How a checkpoint comes into being: one process's part (Save), and all of them together (save).
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <system_error>
#include <utility>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/shared_folder.hpp"
#include "checkpoint/tensor_header.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

/// Puts the finished folder under its final name. Where that name is taken (the same step saved
/// again, or a damaged checkpoint that was passed over), the two change places in one call, so that
/// at every moment a whole checkpoint has the name.
void publish(const fs::path& temporary, const fs::path& final_path, const fs::path& checkpoints,
             int64_t step) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(final_path, ignored))) {
    rename_durably(temporary, final_path);
    return;
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) ==
      0) {
    fsync_directory(checkpoints);
    delete_if_possible(checkpoints, temporary, step);
    return;
  }
  // A file system without the exchange: the old one must go first; checkpoints of other steps stand
  // throughout.
  delete_checkpoint(checkpoints, final_path, step);
  rename_durably(temporary, final_path);
}

/// A full disk shows here, before anything is written. The bytes of the tensors; headers and
/// manifest are small beside them, and writers reserve what they need to the byte.
void require_space(const fs::path& folder, const std::vector<TensorGroup>& groups) {
  uint64_t needed = 0;
  for (const TensorGroup& group : groups) {
    for (const TensorView& tensor : group.tensors) {
      uint64_t bytes = 0;
      require(tensor_bytes(tensor.type, tensor.shape, bytes), "a tensor's size overflows");
      needed += bytes;
    }
  }
  struct statvfs volume {};
  if (::statvfs(folder.c_str(), &volume) != 0) return;
  const uint64_t available = static_cast<uint64_t>(volume.f_bavail) * volume.f_frsize;
  if (needed <= available) return;
  throw UserError(ExitCode::io,
                  fmt::format("{}: no space for a checkpoint: {} needed, {} free", folder.string(),
                              format_bytes(static_cast<int64_t>(needed)),
                              format_bytes(static_cast<int64_t>(available))));
}

}  // namespace

CheckpointStore::Save::Save(CheckpointStore& store, int64_t step) : store_(store), step_(step) {
  require(step >= 0, "a checkpoint's step cannot be negative");
  if (kind_of_file(store_.root_) == FileKind::nothing) {
    polysketch::create_directories(store_.root_);
    // a checkpoint is as durable as the name of the folder above it
    fsync_directory(store_.root_ / "..");
  }
  fs::path path = store_.root_ / temporary_name(step);
  // Names repeat when process numbers do, as in containers: what lies there is from a dead process.
  while (kind_of_file(path) != FileKind::nothing) path = store_.root_ / temporary_name(step);
  polysketch::create_directories(path);
  temporary_ = std::move(path);
  register_live_save(temporary_);
}

CheckpointStore::Save::~Save() {
  unregister_live_save(temporary_);
  if (committed_) return;
  std::error_code error;
  fs::remove_all(temporary_, error);
  if (error)
    log_warning(fmt::format("{}: an unfinished save cannot be removed: {}", temporary_.string(),
                            error.message()));
}

void CheckpointStore::Save::commit(std::vector<FileRecord> files, nlohmann::json state,
                                   int64_t writers) {
  require(!committed_, "a checkpoint can be committed once");
  for (const FileRecord& file : files) {
    const auto is_there = [&] {
      std::error_code error;
      const uintmax_t bytes = fs::file_size(temporary_ / file.name, error);
      return !error && bytes == file.bytes;
    };
    if (is_there()) continue;
    require(writers > 1, "a file of the checkpoint is not in its folder as recorded");
    if (!becomes_true(store_.peers_, is_there))
      throw UserError(ExitCode::io, fmt::format("{}: written by another process, but not seen here",
                                                (temporary_ / file.name).string()));
  }
  // The manifest comes last: a folder without it is no checkpoint. Writing it durably syncs the
  // folder too.
  write_file_durably(temporary_ / "manifest.json",
                     manifest_text(Manifest{step_, std::move(files), std::move(state), writers}));
  publish(temporary_, store_.path_of(step_), store_.root_, step_);
  committed_ = true;
  store_.apply_retention(step_);
}

uint64_t CheckpointStore::save(int64_t step, const std::vector<TensorGroup>& groups,
                               const nlohmann::json& state) {
  std::unique_ptr<Save> own;  // of rank 0; when it goes without a commit, so does the folder
  std::unique_ptr<FolderMark> mark;
  const std::string told = exchange(peers_, [&] {
    if (!peers_.first()) return std::string();
    require_space(kind_of_file(root_) == FileKind::nothing ? root_.parent_path() : root_, groups);
    own = std::make_unique<Save>(*this, step);
    if (peers_.world > 1) mark = std::make_unique<FolderMark>(own->directory());
    return nlohmann::json{own->directory().filename().string(), mark ? mark->name() : "",
                          place_of(own->directory())}
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  })[0];
  const auto begun = nlohmann::json::parse(told).get<std::vector<std::string>>();
  const fs::path directory = root_ / begun[0];

  const std::vector<std::string> written = exchange(peers_, [&] {
    require(begun[0].starts_with(checkpoint_name(step)), "processes save different steps");
    if (!peers_.first()) find_mark(directory, begun[1], begun[2], peers_);
    nlohmann::json records = nlohmann::json::array();
    for (const FileRecord& file : write_share(directory, groups, peers_.rank, peers_.world))
      records.push_back(to_json(file));
    return records.dump();
  });
  std::vector<FileRecord> files;
  for (const std::string& records : written) {
    for (const nlohmann::json& record : nlohmann::json::parse(records))
      files.push_back(file_from_json(record));
  }
  uint64_t bytes = 0;
  for (const FileRecord& file : files) bytes += file.bytes;

  together(peers_, [&] {
    if (!peers_.first()) return;
    for (FileRecord& index : write_indexes(directory, groups, peers_.world))
      files.push_back(std::move(index));
    std::sort(files.begin(), files.end(),
              [](const FileRecord& a, const FileRecord& b) { return a.name < b.name; });
    mark.reset();
    own->commit(std::move(files), state, peers_.world);
  });
  return bytes;
}

}  // namespace polysketch
