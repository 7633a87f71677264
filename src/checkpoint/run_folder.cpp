// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/run_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "support/durable_file.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// Folders on the way to `path` that do not exist, outermost first.
std::vector<fs::path> missing_folders(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (fs::path at = path; !at.empty() && !fs::exists(at, error) && !error;) {
    missing.insert(missing.begin(), at);
    const fs::path above = at.parent_path();
    if (above == at) break;
    at = above;
  }
  return missing;
}

}  // namespace

RunFolder::RunFolder(fs::path path, Peers peers)
    : path_(std::move(path)), peers_(std::move(peers)) {
  const std::string there = exchange(peers_, [&] {
    if (!peers_.first()) return std::string();
    std::error_code error;
    const bool exists = fs::exists(path_, error);
    if (error && error != std::errc::not_a_directory) {
      throw UserError(
          error == std::errc::permission_denied ? ExitCode::permission : ExitCode::cannot_create,
          fmt::format("{}: {}; choose another run.directory", path_.string(), error.message()));
    }
    return std::string(exists ? "yes" : "no");
  })[0];
  if (there == "yes") own();
}

RunFolder::~RunFolder() {
  if (!kept_) give_back();
  lock_.reset();
  if (folder_ >= 0) ::close(folder_);
  if (kept_) return;
  // Only what is empty goes: nobody else may lose what came there meanwhile.
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) ::rmdir(folder->c_str());
}

void RunFolder::give_back() {
  if (lock_) lock_->undo();
}

void RunFolder::take() {
  if (taken_) return;
  if (peers_.first()) made_ = missing_folders(path_);
  own();
}

void RunFolder::own() {
  lock_ = std::make_unique<RunLock>(path_, peers_);
  taken_ = true;
  if (peers_.first()) folder_ = ::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

std::optional<fs::path> RunFolder::look() const {
  const auto is_mine = [&](const fs::path& path) {
    struct stat mine {
    }, there{};
    return ::fstat(folder_, &mine) == 0 && ::stat(path.c_str(), &there) == 0 &&
           same_file(mine, there) && lock_->is_at(path);
  };
  if (folder_ < 0 || is_mine(path_)) return path_;
  std::error_code error;
  const fs::path now = fs::read_symlink(fmt::format("/proc/self/fd/{}", folder_), error);
  if (!error && is_mine(now)) return now;
  return std::nullopt;
}

std::optional<fs::path> RunFolder::place() const {
  const std::string told = exchange(peers_, [&] {
    if (!peers_.first()) return std::string();
    const auto found = look();
    return found ? "at " + found->string() : std::string("gone");
  })[0];
  if (!told.starts_with("at ")) return std::nullopt;
  return fs::path(told.substr(3));
}

void require_run_files(const fs::path& run_directory) {
  struct stat status {};
  const auto there = [&](const char* name) {
    return ::stat((run_directory / name).c_str(), &status) == 0;
  };
  const auto refuse = [&](const char* name, const char* what) {
    throw UserError(ExitCode::cannot_create,
                    fmt::format("{}: is {}: choose another run.directory, or move it away",
                                (run_directory / name).string(), what));
  };
  for (const char* name : {"config.yaml", "run.json", "metrics.jsonl", "log.txt", "samples.txt"}) {
    if (!there(name)) continue;
    if (S_ISFIFO(status.st_mode)) refuse(name, "a pipe, where a run writes a file");
    if (S_ISDIR(status.st_mode)) refuse(name, "a folder, where a run writes a file");
  }
  if (there("checkpoints") && !S_ISDIR(status.st_mode))
    refuse("checkpoints", "a file, where a run keeps its checkpoints");
  if (there("checkpoints")) return;
  if (there("run.json") && S_ISREG(status.st_mode)) {
    const auto about = nlohmann::json::parse(
        read_file(run_directory / "run.json", uint64_t{1} << 20), nullptr, false);
    if (about.is_object() && about.contains("build") && about.contains("machine")) return;
    refuse("run.json", "not of a run of this program");
  }
  // Not log.txt: it is added to, and may be where a shell sends what the run says.
  for (const char* name : {"config.yaml", "metrics.jsonl"}) {
    if (there(name) && S_ISREG(status.st_mode) && status.st_size > 0)
      refuse(name, "there already, and no run has written it");
  }
}

fs::path rescue_folder(const fs::path& run_directory) {
  const std::string base = (run_directory / "").parent_path().string() + ".rescued";
  std::error_code error;
  for (int i = 1;; ++i) {
    const fs::path candidate = i == 1 ? base : fmt::format("{}-{}", base, i);
    if (!fs::exists(fs::symlink_status(candidate, error)) || i > 1000) return candidate;
  }
}

}  // namespace polysketch
