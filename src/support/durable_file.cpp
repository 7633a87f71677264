// SPDX-License-Identifier: Apache-2.0
#include "support/durable_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <mutex>
#include <set>

#include "support/error.hpp"
#include "support/system_error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path temporary_name(const fs::path& final_path) {
  static std::atomic<uint64_t> counter{0};
  const std::string suffix = fmt::format(".tmp-{}-{}", getpid(), counter.fetch_add(1));
  // A name that is as long as names may be must leave room for it.
  const std::string name = final_path.filename().string();
  return final_path.parent_path() / (name.substr(0, NAME_MAX - suffix.size()) + suffix);
}

/// The temporary files that exist now. Never destroyed: a thread may still write while the process
/// ends.
struct Temporaries {
  std::mutex mutex;
  std::set<std::string> paths;
};
Temporaries& temporaries() {
  static Temporaries* const all = new Temporaries;
  return *all;
}

/// The descriptor, or -1 with errno. Under the lock, so that a file either is on the list or is not
/// made.
int begin_temporary(const fs::path& path, unsigned permissions) {
  const std::lock_guard guard(temporaries().mutex);
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions);
  if (fd >= 0) temporaries().paths.insert(path.string());
  return fd;
}

void forget_temporary(const fs::path& path) {
  const std::lock_guard guard(temporaries().mutex);
  temporaries().paths.erase(path.string());
}

void remove_temporary(const fs::path& path) {
  unlink(path.c_str());
  forget_temporary(path);
}

}  // namespace

void remove_temporary_files() {
  temporaries().mutex.lock();  // for good
  for (const std::string& path : temporaries().paths) unlink(path.c_str());
}

int DurableFile::refusal(const fs::path& final_path) {
  const fs::path temporary = temporary_name(final_path);
  const int fd = begin_temporary(temporary, 0600);
  if (fd < 0) return errno;
  close(fd);
  remove_temporary(temporary);
  return 0;
}

DurableFile::DurableFile(fs::path final_path, unsigned permissions)
    : final_path_(std::move(final_path)), temporary_path_(temporary_name(final_path_)) {
  fd_ = begin_temporary(temporary_path_, permissions);
  if (fd_ < 0) throw_system_error(final_path_, "create", errno, ExitCode::cannot_create);
}

DurableFile::~DurableFile() {
  if (fd_ < 0) return;
  close(fd_);
  remove_temporary(temporary_path_);
}

// Gives the file up: what was written may be lost in part, and no later call could find out which
// part.
void DurableFile::fail(const char* action, int error, uint64_t needed) {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  remove_temporary(temporary_path_);
  std::string space;
  struct statvfs volume {};
  if ((error == ENOSPC || error == EDQUOT) &&
      statvfs(folder_of(final_path_).c_str(), &volume) == 0) {
    const auto available = static_cast<int64_t>(volume.f_bavail * volume.f_frsize);
    space = fmt::format(": {} needed, {} free", format_bytes(static_cast<int64_t>(needed)),
                        format_bytes(available));
  }
  throw UserError(
      exit_code_of(error, ExitCode::io),
      fmt::format("{}: cannot {}: {}{}", final_path_.string(), action, reason_of(error), space));
}

void DurableFile::reserve(uint64_t bytes) {
  require(fd_ >= 0, "DurableFile::reserve on a closed file");
  if (bytes <= std::max(reserved_, written_)) return;
  int result = 0;
  do {
    result = fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    if (errno == EOPNOTSUPP || errno == ENOSYS) return;  // the file system cannot say in advance
    fail("reserve space", errno, bytes);
  }
  reserved_ = bytes;
}

void DurableFile::write(const void* data, size_t size) {
  require(fd_ >= 0, "DurableFile::write on a closed file");
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd_, bytes, size);
    if (n < 0) {
      if (errno == EINTR) continue;
      fail("write", errno, size);
    }
    bytes += n;
    size -= static_cast<size_t>(n);
    written_ += static_cast<uint64_t>(n);
  }
}

void DurableFile::keep_attributes() {
  require(fd_ >= 0, "DurableFile::keep_attributes on a closed file");
  struct stat status {};
  if (stat(final_path_.c_str(), &status) != 0) return;
  // Only the superuser may give files away. Bits that lend the owner's rights go with the owner.
  const bool same_owner = fchown(fd_, status.st_uid, status.st_gid) == 0;
  if (fchmod(fd_, status.st_mode & (same_owner ? 07777 : 0777)) != 0)
    fail("set the permissions", errno);
}

void DurableFile::commit() {
  if (!commit_unless_busy())
    throw_system_error(final_path_, "rename into place", EBUSY, ExitCode::cannot_create);
}

bool DurableFile::commit_unless_busy() {
  require(fd_ >= 0, "DurableFile::commit on a closed file");
  // gives back what was not used
  if (reserved_ > written_ && ftruncate(fd_, static_cast<off_t>(written_)) != 0)
    fail("truncate", errno);
  if (fsync(fd_) != 0) fail("fsync", errno, written_);
  const int closed = close(fd_);
  fd_ = -1;
  if (closed != 0) fail("close", errno, written_);
  if (rename(temporary_path_.c_str(), final_path_.c_str()) != 0) {
    const int error = errno;
    remove_temporary(temporary_path_);
    if (error == EBUSY) return false;
    throw_system_error(final_path_, "rename into place", error, ExitCode::cannot_create);
  }
  forget_temporary(temporary_path_);
  fsync_directory(folder_of(final_path_));
  return true;
}

void write_file_durably(const fs::path& path, std::string_view content) {
  DurableFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

void fsync_directory(const fs::path& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_system_error(directory, "open the folder", errno, ExitCode::io);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some network file systems have no fsync for folders; there a rename is as durable as it gets.
  if (result != 0 && error != EINVAL)
    throw_system_error(directory, "fsync the folder", error, ExitCode::io);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    if (error == ENOENT && kind_of_file(from) == FileKind::nothing)
      throw UserError(ExitCode::missing_input,
                      from.string() + ": cannot rename: it does not exist");
    throw_system_error(to, fmt::format("rename from {}", from.string()).c_str(), error,
                       ExitCode::cannot_create);
  }
  fsync_directory(folder_of(to));
  if (folder_of(from) != folder_of(to)) fsync_directory(folder_of(from));
}

FileKind kind_of_file(const fs::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR) return FileKind::nothing;
    throw_system_error(path, "open", error, exit_code_of_reading(error));
  }
  return S_ISREG(status.st_mode)   ? FileKind::regular
         : S_ISDIR(status.st_mode) ? FileKind::folder
                                   : FileKind::other;
}

std::string read_file(const fs::path& path, uint64_t limit) {
  // O_NONBLOCK: a pipe without a writer must not hang us
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      throw UserError(ExitCode::missing_input, path.string() + ": no such file");
    throw_system_error(path, "open", error, exit_code_of_reading(error));
  }
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat status {};
  if (fstat(fd, &status) != 0) throw_system_error(path, "read", errno, ExitCode::io);
  // its writer may take its time; without one, reading ends at once
  if (S_ISFIFO(status.st_mode)) fcntl(fd, F_SETFL, 0);
  if (S_ISDIR(status.st_mode))
    throw UserError(ExitCode::io, path.string() + ": cannot read: it is a folder, not a file");
  const auto too_large = [&] {
    return UserError(ExitCode::bad_data,
                     fmt::format("{}: larger than the {} allowed", path.string(),
                                 format_bytes(static_cast<int64_t>(limit))));
  };
  if (S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) > limit) throw too_large();
  std::string content;
  size_t size = 0;
  for (;;) {
    if (content.size() - size < 4096)
      content.resize(
          std::max({content.size() * 2, static_cast<size_t>(status.st_size) + 4096, size_t{8192}}));
    const ssize_t n = ::read(fd, content.data() + size, content.size() - size);
    if (n == 0) break;
    if (n < 0) {
      if (errno == EINTR) continue;
      throw_system_error(path, "read", errno, ExitCode::io);
    }
    size += static_cast<size_t>(n);
    if (size > limit) throw too_large();
  }
  content.resize(size);
  return content;
}

void create_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error == std::errc::file_exists || error == std::errc::no_such_file_or_directory) {
    for (fs::path at = path; !at.empty() && at != at.parent_path(); at = at.parent_path()) {
      std::error_code ignored;
      if (!fs::is_symlink(at, ignored) || fs::exists(at, ignored)) continue;
      throw UserError(ExitCode::cannot_create,
                      fmt::format("{}: a link to {}, which is not there: make that folder, or "
                                  "remove the link",
                                  at.string(), fs::read_symlink(at, ignored).string()));
    }
  }
  if (error) throw_system_error(path, "create the folder", error.value(), ExitCode::cannot_create);
  if (kind_of_file(path) != FileKind::folder)
    throw UserError(ExitCode::cannot_create,
                    path.string() + ": cannot create the folder: a file has this name");
}

}  // namespace polysketch
