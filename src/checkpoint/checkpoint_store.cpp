// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/run_lock.hpp"
#include "checkpoint/verification.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

/// The new checkpoint is safe already: an old one that stays costs space, not the run.
void try_to_delete(const fs::path& checkpoints, const fs::path& victim, int64_t step) {
  try {
    delete_checkpoint(checkpoints, victim, step);
  } catch (const UserError& error) {
    log_warning(fmt::format("{}: an old checkpoint stays: {}", victim.string(), error.what()));
  }
}

/// Puts the finished folder under its final name. Where that name is taken (the same step saved again, or a damaged checkpoint that was
/// passed over), the two change places in one call, so that at every moment a whole checkpoint has the name.
void publish(const fs::path& temporary, const fs::path& final_path, const fs::path& checkpoints, int64_t step) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(final_path, ignored))) {
    rename_durably(temporary, final_path);
    return;
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0) {
    fsync_directory(checkpoints);
    try_to_delete(checkpoints, temporary, step);
    return;
  }
  // A file system without the exchange: the old one must go first; checkpoints of other steps stand throughout.
  delete_checkpoint(checkpoints, final_path, step);
  rename_durably(temporary, final_path);
}

}  // namespace

CheckpointStore::CheckpointStore(const fs::path& run_directory, const CheckpointConfig& config)
    : root_(run_directory / "checkpoints"), config_(config) {}

CheckpointStore::Save::Save(CheckpointStore& store, int64_t step) : store_(store), step_(step) {
  require(step >= 0, "a checkpoint's step cannot be negative");
  if (!fs::exists(store_.root_)) {
    polysketch::create_directories(store_.root_);
    fsync_directory(fs::absolute(store_.root_).parent_path());  // a checkpoint is as durable as the name of the folder above it
  }
  fs::path path = store_.root_ / temporary_name(step);
  // Names repeat when process numbers do, as in containers: what lies there is from a dead process.
  while (fs::exists(path)) path = store_.root_ / temporary_name(step);
  polysketch::create_directories(path);
  temporary_ = std::move(path);
  register_live_save(temporary_);
}

CheckpointStore::Save::~Save() {
  unregister_live_save(temporary_);
  if (committed_) return;
  std::error_code error;
  fs::remove_all(temporary_, error);
  if (error) log_warning(fmt::format("{}: an unfinished save cannot be removed: {}", temporary_.string(), error.message()));
}

void CheckpointStore::Save::commit(std::vector<FileRecord> files, nlohmann::json state) {
  require(!committed_, "a checkpoint can be committed once");
  for (const FileRecord& file : files) {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(temporary_ / file.name, error);
    require(!error && bytes == file.bytes, "a file of the checkpoint is not in its folder as recorded");
  }
  // The manifest comes last: a folder without it is no checkpoint. Writing it durably syncs the folder too.
  write_file_durably(temporary_ / "manifest.json", manifest_text(Manifest{step_, std::move(files), std::move(state)}));
  publish(temporary_, store_.path_of(step_), store_.root_, step_);
  committed_ = true;
  store_.apply_retention(step_);
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> found;
  std::error_code error;
  for (fs::directory_iterator at(root_, error), end; !error && at != end; at.increment(error)) {
    if (const auto step = step_of_name(at->path().filename().string())) found.push_back(*step);
  }
  // A folder that cannot be read must not look like one without checkpoints: that would start the run from nothing.
  if (error && error != std::errc::no_such_file_or_directory) {
    const bool forbidden = error == std::errc::permission_denied;
    throw UserError(forbidden ? ExitCode::permission : ExitCode::io,
                    fmt::format("{}: cannot be read: {}", root_.string(), error.message()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

fs::path CheckpointStore::path_of(int64_t step) const { return root_ / checkpoint_name(step); }

CheckpointStore::Loaded CheckpointStore::verify(const fs::path& checkpoint) const { return verify_checkpoint(checkpoint); }

std::optional<CheckpointStore::Loaded> CheckpointStore::newest_valid() const {
  if (holds_run_lock(root_.parent_path())) remove_leftovers(root_);
  const std::vector<int64_t> known = steps();
  std::vector<std::string> defects;
  for (auto step = known.rbegin(); step != known.rend(); ++step) {
    try {
      Loaded loaded = verify_checkpoint(path_of(*step));
      for (const std::string& defect : defects)
        log_warning(fmt::format("{}; using {} instead", defect, loaded.directory.filename().string()));
      loaded_from_ = loaded.step;
      return loaded;
    } catch (const NewerFormat&) {
      throw;
    } catch (const UserError& error) {
      defects.emplace_back(error.what());
    }
  }
  if (defects.empty()) return std::nullopt;
  std::string text =
      fmt::format("{}: none of the {} checkpoints can be loaded; restore one from a copy, or choose another run.directory to start anew",
                  root_.string(), defects.size());
  for (const std::string& defect : defects) text += "\n  " + defect;
  throw UserError(ExitCode::no_checkpoint, text);
}

void CheckpointStore::apply_retention(int64_t newest) {
  std::vector<int64_t> known = steps();
  // Steps beyond the newest are what a fallback passed over. They are neither counted nor deleted: training will reach and replace them.
  known.erase(std::upper_bound(known.begin(), known.end(), newest), known.end());
  const auto last = static_cast<size_t>(std::max<int64_t>(1, config_.keep_last));
  const size_t surplus = known.size() > last ? known.size() - last : 0;
  for (size_t i = 0; i < surplus; ++i) {
    const int64_t step = known[i];
    if (step == newest || step == loaded_from_ || (config_.keep_every > 0 && step % config_.keep_every == 0)) continue;
    try_to_delete(root_, path_of(step), step);
  }
}

}  // namespace polysketch
