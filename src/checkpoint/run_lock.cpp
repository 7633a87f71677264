// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/run_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/shared_folder.hpp"
#include "support/build_info.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using Identity = std::pair<dev_t, ino_t>;

std::mutex held_mutex;
std::set<Identity> held;

Identity identity_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? Identity{status.st_dev, status.st_ino} : Identity{};
}

std::string content_of(int fd) {
  std::array<char, 256> buffer{};
  const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), 0);
  return {buffer.data(), got > 0 ? static_cast<size_t>(got) : 0};
}

bool put_content(int fd, const std::string& text) {
  return ::ftruncate(fd, 0) == 0 &&
         ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

std::string owner_text(int fd) {
  std::string text = content_of(fd);
  text.erase(std::min(text.find('\n'), text.size()));
  return text.empty() ? "another process" : text;
}

}  // namespace

RunLock::RunLock(const fs::path& run_directory, const Peers& peers) {
  try {
    together(peers, [&] {
      if (peers.first()) take(run_directory);
    });
    check_shared(run_directory, peers);
  } catch (...) {
    undo();
    release();
    throw;
  }
}

void RunLock::take(const fs::path& run_directory) {
  polysketch::create_directories(run_directory);
  path_ = run_directory / "lock";
  for (int attempt = 0;; ++attempt) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    made_ = fd_ >= 0;
    if (fd_ < 0 && errno == EEXIST) {
      fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      if (fd_ < 0 && errno == ENOENT && attempt < 100) continue;  // removed between the two calls
    }
    if (fd_ < 0) {
      const int error = errno;
      const bool forbidden = error == EACCES || error == EPERM || error == EROFS;
      throw UserError(forbidden ? ExitCode::permission : ExitCode::cannot_create,
                      fmt::format("{}: cannot be opened: {}; choose a run.directory that can be "
                                  "written",
                                  path_.string(), std::strerror(error)));
    }
    before_ = content_of(fd_);
    while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (error == EINTR) continue;
      if (error == EWOULDBLOCK) {
        const std::string owner = owner_text(fd_);
        ::close(std::exchange(fd_, -1));
        throw UserError(ExitCode::cannot_create,
                        fmt::format("{}: the run folder is in use by {}; wait for it, stop it, or "
                                    "choose another run.directory",
                                    run_directory.string(), owner));
      }
      log_warning(fmt::format(
          "{}: cannot be locked ({}); make sure that no other process trains in this folder",
          path_.string(), std::strerror(error)));
      return;
    }
    // A process whose start was refused removes the file that it made (undo): a lock on that one
    // would keep nobody out.
    if (is_at(run_directory)) break;
    ::close(std::exchange(fd_, -1));
  }
  // The text only serves the message above: a file system too full for it must not stop a run that
  // can still read and report.
  if (!put_content(fd_, fmt::format("process {} on host {}\n", ::getpid(), host_name())))
    log_warning(fmt::format("{}: cannot note the owner: {}", path_.string(), std::strerror(errno)));
  const std::lock_guard guard(held_mutex);
  held.insert(identity_of(fd_));
}

bool RunLock::is_at(const fs::path& run_directory) const {
  if (fd_ < 0) return true;  // held by another process for this one
  struct stat there {};
  return ::stat((run_directory / "lock").c_str(), &there) == 0 &&
         Identity{there.st_dev, there.st_ino} == identity_of(fd_);
}

void RunLock::undo() {
  if (fd_ < 0) return;
  if (made_) {
    if (is_at(path_.parent_path())) ::unlink(path_.c_str());
  } else {
    (void)put_content(fd_, before_);
  }
}

RunLock::~RunLock() { release(); }

void RunLock::release() {
  if (fd_ < 0) return;
  {
    const std::lock_guard guard(held_mutex);
    held.erase(identity_of(fd_));
  }
  // The file stays: removing it would let a third process lock a new one while a second still waits
  // on the old.
  ::close(std::exchange(fd_, -1));
}

bool holds_run_lock(const fs::path& run_directory) {
  struct stat status {};
  if (::stat((run_directory / "lock").c_str(), &status) != 0) return false;
  const std::lock_guard guard(held_mutex);
  return held.count({status.st_dev, status.st_ino}) > 0;
}

}  // namespace polysketch
