// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/checkpoint_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "checkpoint/leftovers.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/run_lock.hpp"
#include "checkpoint/verification.hpp"
#include "support/error.hpp"
#include "support/log.hpp"
#include "support/system_error.hpp"

namespace polysketch {

namespace fs = std::filesystem;

CheckpointStore::CheckpointStore(const fs::path& run_directory, const CheckpointConfig& config,
                                 Peers peers)
    : root_(run_directory / "checkpoints"), config_(config), peers_(std::move(peers)) {
  require(peers_.world == 1 || peers_.all_gather, "several processes must be able to talk");
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> found;
  std::error_code error;
  for (fs::directory_iterator at(root_, error), end; !error && at != end; at.increment(error)) {
    if (const auto step = step_of_name(at->path().filename().string())) found.push_back(*step);
  }
  // A folder that cannot be read must not look like one without checkpoints: that would start the
  // run from nothing.
  if (error && error != std::errc::no_such_file_or_directory)
    throw_system_error(root_, "read the folder", error.value(), ExitCode::io);
  std::sort(found.begin(), found.end());
  return found;
}

fs::path CheckpointStore::path_of(int64_t step) const { return root_ / checkpoint_name(step); }

CheckpointStore::Loaded CheckpointStore::verify(const fs::path& checkpoint) const {
  return verify_checkpoint(checkpoint);
}

std::optional<CheckpointStore::Loaded> CheckpointStore::newest_valid() const {
  // Rank 0 looks and tells: a network file system may show another process an older state of the
  // folder for a while.
  const std::string listed = exchange(peers_, [&] {
    if (!peers_.first()) return std::string();
    if (holds_run_lock(root_.parent_path())) remove_leftovers(root_);
    return nlohmann::json(steps()).dump();
  })[0];
  const auto known = nlohmann::json::parse(listed).get<std::vector<int64_t>>();
  std::vector<std::string> defects;
  for (auto step = known.rbegin(); step != known.rend(); ++step) {
    try {
      Loaded loaded = verify_checkpoint(path_of(*step), peers_);
      for (const std::string& defect : defects)
        if (peers_.first())
          log_warning(
              fmt::format("{}; using {} instead", defect, loaded.directory.filename().string()));
      loaded_from_ = loaded.step;
      return loaded;
    } catch (const NewerFormat&) {
      throw;
    } catch (const NothingLeft&) {
      throw;
    } catch (const UserError& error) {
      if (error.code() == ExitCode::distributed) throw;  // says nothing of the checkpoint
      defects.emplace_back(error.what());
    }
  }
  if (defects.empty()) return std::nullopt;
  std::string text = fmt::format(
      "{}: none of the {} checkpoints can be loaded; restore one from a copy, or choose another "
      "run.directory to start anew",
      root_.string(), defects.size());
  for (const std::string& defect : defects) text += "\n  " + defect;
  throw UserError(ExitCode::no_checkpoint, text);
}

void CheckpointStore::apply_retention(int64_t newest) {
  std::vector<int64_t> known;
  try {
    known = steps();
  } catch (const UserError& error) {  // the new checkpoint is safe already
    log_warning(fmt::format("old checkpoints stay: {}", error.what()));
  }
  // Steps beyond the newest are what a fallback passed over. They are neither counted nor deleted:
  // training will reach and replace them.
  known.erase(std::upper_bound(known.begin(), known.end(), newest), known.end());
  const auto last = static_cast<size_t>(std::max<int64_t>(1, config_.keep_last));
  const size_t surplus = known.size() > last ? known.size() - last : 0;
  for (size_t i = 0; i < surplus; ++i) {
    const int64_t step = known[i];
    if (step == newest || step == loaded_from_ || (config_.keep_best && step == best_) ||
        (config_.keep_every > 0 && step % config_.keep_every == 0))
      continue;
    delete_if_possible(root_, path_of(step), step);
  }
}

}  // namespace polysketch
