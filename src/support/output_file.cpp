// SPDX-License-Identifier: Apache-2.0
#include "support/output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support/durable_file.hpp"
#include "support/standard_streams.hpp"
#include "support/system_error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;

constexpr int most_links = 40;  // as many as the kernel follows

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  /// 0, or errno: what a network file system could not write shows only now.
  int close() {
    const int result = ::close(number_);
    number_ = -1;
    return result == 0 ? 0 : errno;
  }

 private:
  int number_;
};

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// The links in /proc/PID/fd lead to what is open, which may have no name; their text is only for
/// people.
bool stands_for_a_descriptor(const fs::path& link) {
  struct statfs system {};
  return ::statfs(folder_of(link).c_str(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

/// N if the link is /proc/self/fd/N, however that was written.
std::optional<int> own_descriptor(const fs::path& link) {
  std::error_code error;
  const fs::path folder = fs::canonical(folder_of(link), error),
                 own = fs::canonical("/proc/self/fd", error),
                 of_thread = fs::canonical("/proc/thread-self/fd", error);
  if (error || (folder != own && folder != of_thread)) return std::nullopt;
  const auto number = parse_count(link.filename().string());
  return number ? std::optional(static_cast<int>(*number)) : std::nullopt;
}

}  // namespace

OutputFile::OutputFile(std::string option, const std::string& name)
    : option_(std::move(option)), name_(name), place_(name), target_(name) {
  if (name.empty())
    throw UserError(
        ExitCode::usage,
        fmt::format("{}: got '', want the name of a file, or - for standard output", option_));
  if (name == "-") {
    descriptor_ = STDOUT_FILENO;
  } else {
    follow_links();
    if (!descriptor_) look_at_target();
  }
  if (is_standard_output()) place_ = "standard output";
}

void OutputFile::fail(std::string_view action, int error) const {
  throw UserError(exit_code_of(error, ExitCode::cannot_create),
                  fmt::format("{}: {}: cannot {}: {}", option_, place_, action, reason_of(error)));
}

void OutputFile::follow_links() {
  for (int links = 0;; ++links) {
    struct stat status {};
    if (::lstat(target_.c_str(), &status) != 0) {
      if (errno == ENOENT) return;  // to be made
      fail("write", errno);
    }
    if (!S_ISLNK(status.st_mode)) return;
    if (stands_for_a_descriptor(target_)) {
      descriptor_ = own_descriptor(target_);
      return;
    }
    if (links == most_links) fail("write", ELOOP);
    std::error_code error;
    const fs::path leads_to = fs::read_symlink(target_, error);
    if (error) fail("write", error.value());
    // An absolute path replaces what stands before it.
    target_ = target_.parent_path() / leads_to;
    place_ = fmt::format("{} -> {}", name_, target_.string());
  }
}

void OutputFile::look_at_target() {
  struct stat status {};
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) fail("write", errno);
  if ((exists && S_ISDIR(status.st_mode)) || !target_.has_filename()) {
    throw UserError(
        ExitCode::cannot_create,
        fmt::format("{}: {} is a folder: give the name of a file in it", option_, place_));
  }
  if (exists && ::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) fail("write", errno);
  if (exists && !S_ISREG(status.st_mode)) {
    socket_ = S_ISSOCK(status.st_mode);
    return;
  }
  if (exists && stands_for_a_descriptor(target_)) {
    others_ = true;
    return;
  }
  const fs::path folder = folder_of(target_);
  struct stat around {};
  if (::stat(folder.c_str(), &around) != 0) {
    if (errno != ENOENT) fail("write", errno);
    throw UserError(ExitCode::cannot_create,
                    fmt::format("{}: {}: the folder {} does not exist: make it first", option_,
                                place_, folder.string()));
  }
  if (const int error = DurableFile::refusal(target_); error == 0) {
    replace_ = true;
  } else if (exists && (error == EACCES || error == EPERM || error == EROFS)) {
    in_place_ = true;
  } else {
    fail("create", error);
  }
}

void OutputFile::write(std::string_view content) const {
  if (descriptor_) return write_whole(*descriptor_, content, place_);
  if (!replace_) return write_into(in_place_ ? O_TRUNC : others_ ? O_APPEND : 0, content);
  DurableFile file(target_, 0666);
  file.keep_attributes();
  file.write(content.data(), content.size());
  if (!file.commit_unless_busy()) write_into(O_TRUNC, content);
}

void OutputFile::write_into(int flags, std::string_view content) const {
  Descriptor file(socket_ ? ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
                          : ::open(target_.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC | flags));
  if (file.number() < 0) fail("open", errno);
  if (socket_) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = target_.string();
    if (path.size() >= sizeof address.sun_path) fail("connect", ENAMETOOLONG);
    std::copy(path.begin(), path.end(), std::begin(address.sun_path));
    if (::connect(file.number(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      fail("connect", errno);
  }
  write_whole(file.number(), content, place_);
  if (const int error = file.close(); error != 0 && error != EINTR) fail("close", error);
}

}  // namespace polysketch
