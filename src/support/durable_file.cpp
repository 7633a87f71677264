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
#include <cstdio>
#include <cstring>

#include "support/error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

// Refusals get 77; what else keeps a file from being made gets `otherwise`.
ExitCode code_for(int error, ExitCode otherwise) {
  if (error == EACCES || error == EPERM) return ExitCode::permission;
  if (error == ENOSPC || error == EDQUOT || error == EIO) return ExitCode::io;
  return otherwise;
}

[[noreturn]] void throw_errno(const fs::path& path, const char* action, int error,
                              ExitCode otherwise) {
  throw UserError(code_for(error, otherwise),
                  fmt::format("{}: cannot {}: {}", path.string(), action, std::strerror(error)));
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path temporary_name(const fs::path& final_path) {
  static std::atomic<uint64_t> counter{0};
  return final_path.string() + fmt::format(".tmp-{}-{}", getpid(), counter.fetch_add(1));
}

}  // namespace

DurableFile::DurableFile(fs::path final_path)
    : final_path_(std::move(final_path)), temporary_path_(temporary_name(final_path_)) {
  fd_ = open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_errno(final_path_, "create", errno, ExitCode::cannot_create);
}

DurableFile::~DurableFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_path_.c_str());
}

// Gives the file up: what was written may be lost in part, and no later call could find out which
// part.
void DurableFile::fail(const char* action, int error, uint64_t needed) {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  unlink(temporary_path_.c_str());
  std::string space;
  struct statvfs volume {};
  if ((error == ENOSPC || error == EDQUOT) &&
      statvfs(folder_of(final_path_).c_str(), &volume) == 0) {
    const auto available = static_cast<int64_t>(volume.f_bavail * volume.f_frsize);
    space = fmt::format(": {} needed, {} free", format_bytes(static_cast<int64_t>(needed)),
                        format_bytes(available));
  }
  throw UserError(ExitCode::io, fmt::format("{}: cannot {}: {}{}", final_path_.string(), action,
                                            std::strerror(error), space));
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

void DurableFile::commit() {
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
    unlink(temporary_path_.c_str());
    throw_errno(final_path_, "rename into place", error, ExitCode::cannot_create);
  }
  fsync_directory(folder_of(final_path_));
}

void write_file_durably(const fs::path& path, std::string_view content) {
  DurableFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

void fsync_directory(const fs::path& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_errno(directory, "open the folder", errno, ExitCode::io);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some network file systems have no fsync for folders; there a rename is as durable as it gets.
  if (result != 0 && error != EINVAL)
    throw_errno(directory, "fsync the folder", error, ExitCode::io);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    if (error == ENOENT && !fs::exists(from))
      throw UserError(ExitCode::missing_input,
                      from.string() + ": cannot rename: it does not exist");
    throw_errno(to, fmt::format("rename from {}", from.string()).c_str(), error,
                ExitCode::cannot_create);
  }
  fsync_directory(folder_of(to));
  if (folder_of(from) != folder_of(to)) fsync_directory(folder_of(from));
}

std::string read_file(const fs::path& path, uint64_t limit) {
  // O_NONBLOCK: a pipe without a writer must not hang us
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      throw UserError(ExitCode::missing_input, path.string() + ": no such file");
    throw_errno(path, "open", error, ExitCode::io);
  }
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat status {};
  if (fstat(fd, &status) != 0) throw_errno(path, "read", errno, ExitCode::io);
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
      throw_errno(path, "read", errno, ExitCode::io);
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
  if (error) throw_errno(path, "create the folder", error.value(), ExitCode::cannot_create);
  if (!fs::is_directory(path))
    throw UserError(ExitCode::cannot_create,
                    path.string() + ": cannot create the folder: a file has this name");
}

}  // namespace polysketch
