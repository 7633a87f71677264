// SPDX-License-Identifier: Apache-2.0
#include "reporting/append_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "support/log.hpp"
#include "support/system_error.hpp"

namespace polysketch {

namespace {

bool ends_within_a_line(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() <= 0) return false;
  file.seekg(-1, std::ios::end);
  return file.get() != '\n';
}

}  // namespace

AppendFile::AppendFile(std::string path, std::string consequence)
    : path_(std::move(path)), consequence_(std::move(consequence)) {
  open();
}

void AppendFile::open() {
  std::error_code error;
  const auto folder = std::filesystem::path(path_).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  // The opening of a pipe would wait until somebody reads it.
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd_ < 0) return fail(reason_of(errno));
  ::fcntl(fd_, F_SETFL, O_WRONLY | O_APPEND);
}

AppendFile::~AppendFile() {
  if (fd_ >= 0 && ::close(fd_) != 0) {
    const int error = errno;
    fd_ = -1;
    fail(reason_of(error));
  }
}

void AppendFile::append(std::string_view bytes) {
  size_t done = 0;
  while (fd_ >= 0 && done < bytes.size()) {
    const ssize_t put = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (put >= 0) {
      done += static_cast<size_t>(put);
    } else if (errno != EINTR) {
      const int error = errno;
      // Readers should not meet half a row: take back what a full disk let through.
      struct stat status {};
      if (done > 0 && ::fstat(fd_, &status) == 0)
        (void)!::ftruncate(fd_, status.st_size - static_cast<off_t>(done));
      fail(reason_of(error));
    }
  }
}

void AppendFile::append_shared_line(std::string_view line) {
  if (fd_ < 0) return;
  // On a file system without locks one write a line still keeps the lines whole.
  const bool locked = ::flock(fd_, LOCK_EX) == 0;
  append((ends_within_a_line(path_) ? "\n" : "") + std::string(line) + "\n");
  if (locked && fd_ >= 0) ::flock(fd_, LOCK_UN);
}

void AppendFile::sync() {
  // EINVAL: a pipe or a device such as /dev/stdout, where nothing can be made durable.
  if (fd_ >= 0 && ::fdatasync(fd_) != 0 && errno != EINVAL) fail(reason_of(errno));
}

void AppendFile::stay_in(const std::string& folder) {
  struct stat mine {
  }, there{};
  if (fd_ < 0 || ::fstat(fd_, &mine) != 0 || !S_ISREG(mine.st_mode)) return;
  const std::string before = std::exchange(
      path_, (std::filesystem::path(folder) / std::filesystem::path(path_).filename()).string());
  const bool something = ::stat(path_.c_str(), &there) == 0;
  if (something && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino) return;
  std::string content;
  if (!something) {
    std::ifstream file(fmt::format("/proc/self/fd/{}", fd_), std::ios::binary);
    content.assign(std::istreambuf_iterator<char>(file), {});
  }
  ::close(fd_);
  open();
  append(content);
  if (path_ == before)
    log_warning(fmt::format("{}: was {}", path_,
                            something ? "replaced by another file: what comes is added to that one"
                                      : "removed: it is written anew, with all that it held"));
}

void AppendFile::fail(const std::string& reason) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  log_warning(fmt::format("{}: cannot be written: {}; {}", path_, reason, consequence_));
}

}  // namespace polysketch
