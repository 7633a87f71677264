// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/shared_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <string_view>
#include <system_error>

#include "support/build_info.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view mark_prefix = ".shared-";
constexpr size_t mark_digits = 32;

std::string new_mark() {
  std::random_device device;  // the kernel's, since two processes must never agree by chance
  std::string name(mark_prefix);
  for (size_t i = 0; i < mark_digits / 8; ++i) name += fmt::format("{:08x}", device());
  return name;
}

/// What a process that died in a check left; nobody else gives such names.
void remove_old_marks(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.size() == mark_prefix.size() + mark_digits && name.starts_with(mark_prefix))
      ::unlink(at->path().c_str());
  }
}

}  // namespace

FolderMark::FolderMark(const fs::path& folder) : folder_(folder), name_(new_mark()) {
  remove_old_marks(folder_);
  const fs::path path = folder_ / name_;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) {
    throw_system_error(path, "create", errno, ExitCode::cannot_create);
  }
  ::close(fd);
}

FolderMark::~FolderMark() { ::unlink((folder_ / name_).c_str()); }

void find_mark(const fs::path& folder, const std::string& mark, const std::string& theirs,
               const Peers& peers) {
  const bool found = becomes_true(peers, [&] {
    std::error_code error;
    // Reading the folder makes network file systems ask the server again; a name looked up too
    // early may be remembered as missing.
    const fs::directory_iterator fresh(folder, error);
    return fs::exists(folder / mark, error);
  });
  if (!found) {
    throw UserError(ExitCode::cannot_create,
                    fmt::format("{} is not the folder of rank 0 ({}): run.directory must lie on a "
                                "file system that all processes share",
                                place_of(folder), theirs));
  }
}

std::string place_of(const fs::path& folder) {
  std::error_code error;
  return fmt::format("{} on host {}", fs::absolute(folder, error).lexically_normal().string(),
                     host_name());
}

void check_shared(const fs::path& folder, const Peers& peers) {
  if (peers.world == 1) return;
  std::unique_ptr<FolderMark> mark;
  const std::string told = exchange(peers, [&] {
    if (!peers.first()) return std::string();
    mark = std::make_unique<FolderMark>(folder);
    return mark->name() + place_of(folder);
  })[0];
  together(peers, [&] {
    const size_t length = mark_prefix.size() + mark_digits;
    if (!peers.first()) find_mark(folder, told.substr(0, length), told.substr(length), peers);
  });
}

}  // namespace polysketch
