// SPDX-License-Identifier: Apache-2.0
#include "data/file_store.hpp"

#include <arrow/io/file.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "data/file_pattern.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class LocalBytes final : public ByteSource {
 public:
  LocalBytes(Descriptor file, std::string path) : file_(std::move(file)), path_(std::move(path)) {
    posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  size_t read(void* data, size_t size) override {
    while (true) {
      const ssize_t got = ::read(file_.get(), data, size);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) throw_system_error(path_, "read", errno, ExitCode::io);
    }
  }

 private:
  Descriptor file_;
  std::string path_;
};

/// Why a path cannot be opened, the links on its way looked into.
[[noreturn]] void fail_open(const std::string& path, int error) {
  std::error_code ignored;
  const bool link = fs::is_symlink(path, ignored);
  struct stat info {};
  switch (error) {
    case ELOOP:
      if (::stat(path.c_str(), &info) == 0) {
        throw UserError(ExitCode::bad_data,
                        fmt::format("{}: a symbolic link into /proc, to a file that a process "
                                    "holds open: make it lead to the file itself",
                                    path));
      }
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: symbolic links that lead round in a circle: remove them", path));
    case EACCES:
    case EPERM:
      throw UserError(ExitCode::permission,
                      fmt::format("{}: permission denied: change its permissions", path));
    case ENOENT:
    case ENOTDIR:
      if (link) {
        throw UserError(ExitCode::missing_input,
                        fmt::format("{}: a symbolic link to '{}', which does not exist: fetch that "
                                    "file, or remove the link",
                                    path, fs::read_symlink(path, ignored).string()));
      }
      throw UserError(
          ExitCode::missing_input,
          fmt::format(
              "{}: the file no longer exists: was the corpus changed while it was being read?",
              path));
    default:
      throw_system_error(path, "open", error, exit_code_of_reading(error));
  }
}

void require_regular(const struct stat& info, const std::string& path) {
  if (S_ISREG(info.st_mode)) return;
  std::error_code ignored;
  const std::string kind = S_ISDIR(info.st_mode)    ? "folder"
                           : S_ISFIFO(info.st_mode) ? "pipe"
                           : S_ISSOCK(info.st_mode) ? "socket"
                                                    : "device";
  throw UserError(ExitCode::bad_data,
                  fmt::format("{}: is {} {}, not a regular file: remove it from the corpus folder",
                              path, fs::is_symlink(path, ignored) ? "a link to a" : "a", kind));
}

/// Follows links, those of /proc excepted: they lead to whatever a process holds open.
int open_following(int root, const std::string& name) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;  // a FIFO must not hang the open
  how.resolve = RESOLVE_NO_MAGICLINKS;
  const auto fd = static_cast<int>(::syscall(SYS_openat2, root, name.c_str(), &how, sizeof how));
  // Old kernels and some sandboxes do not know openat2.
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL)) return fd;
  return ::openat(root, name.c_str(), static_cast<int>(how.flags));
}

bool is_hexadecimal(const std::string& name, size_t digits) {
  return name.size() == digits && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

/// A run, a checkpoint, a token cache: by what only this program puts into a folder.
bool is_output(const fs::path& folder) {
  std::error_code ignored;
  const auto holds = [&](const char* name) { return fs::exists(folder / name, ignored); };
  const std::string name = folder.filename().string();
  if (holds("config.yaml") && (holds("metrics.jsonl") || holds("run.json") || holds("checkpoints")))
    return true;
  if (name.starts_with("step-") && holds("manifest.json")) return true;
  if (name == "file-hashes") return true;
  if (!is_hexadecimal(name, 16)) return false;
  const fs::directory_iterator inside(folder, ignored);
  return inside != fs::directory_iterator() &&
         is_hexadecimal(inside->path().filename().string(), 64);
}

class LocalStore final : public FileStore {
 public:
  explicit LocalStore(const std::string& root) : root_(root) {
    std::error_code error;
    if (!fs::exists(root_, error)) {
      if (error || fs::is_symlink(root_, error)) fail_open(root, error ? error.value() : ENOENT);
      throw UserError(
          ExitCode::missing_input,
          fmt::format(
              "{}: the corpus folder does not exist: set data.root to the folder of the corpus",
              root));
    }
    if (!fs::is_directory(root_, error)) {
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: is not a folder: set data.root to the folder of the corpus", root));
    }
    folder_ = Descriptor(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder_.get() < 0) fail_open(root, errno);
  }

  std::vector<CorpusFile> list(const std::string& pattern) const override {
    std::vector<CorpusFile> files;
    for (const auto& name : names(pattern)) {
      // Opening it shows what is no file before anything is read.
      const Descriptor file = open_regular(name);
      struct stat info {};
      if (::fstat(file.get(), &info) != 0) fail_open(path_of(name), errno);
      files.push_back({name, path_of(name), static_cast<uint64_t>(info.st_size)});
    }
    return files;
  }

  std::vector<std::string> names(const std::string& pattern) const override {
    std::set<std::string> found;
    std::vector<Identity> above;
    walk("", pattern, above, [&](std::string name) { found.insert(std::move(name)); });
    std::vector<std::string> names;
    for (const auto& name : found) {
      if (matches_pattern(pattern, name)) names.push_back(name);
    }
    return names;
  }

  std::vector<FolderEntry> entries(const std::string& folder) const override {
    std::vector<FolderEntry> found;
    const fs::path path = root_ / folder;
    std::error_code error;
    fs::directory_iterator at(path, fs::directory_options::none, error);
    for (const fs::directory_iterator end; !error && at != end; at.increment(error)) {
      const std::string name = at->path().filename().string();
      if (!is_hidden(name)) found.push_back({name, kind_of(*at)});
    }
    if (error && error != std::errc::no_such_file_or_directory &&
        error != std::errc::not_a_directory)
      fail_open(path.string(), error.value());
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return found;
  }

  std::unique_ptr<ByteSource> open_bytes(const std::string& name) const override {
    return std::make_unique<LocalBytes>(open_regular(name), path_of(name));
  }

  std::shared_ptr<arrow::io::RandomAccessFile> open_random_access(
      const std::string& name) const override {
    Descriptor file = open_regular(name);
    auto opened = arrow::io::ReadableFile::Open(file.get());
    if (!opened.ok())
      throw UserError(ExitCode::io,
                      fmt::format("{}: {}", path_of(name), opened.status().message()));
    file.release();  // Arrow closes it
    return *opened;
  }

  std::string version_tag(const std::string& name) const override {
    const Descriptor file = open_regular(name);
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) fail_open(path_of(name), errno);
    return fmt::format("{}:{}:{}:{}.{:09}:{}.{:09}", info.st_dev, info.st_ino, info.st_size,
                       info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec,
                       info.st_ctim.tv_nsec);
  }

  bool local() const override { return true; }

 private:
  std::string path_of(const std::string& name) const { return (root_ / name).string(); }

  Descriptor open_regular(const std::string& name) const {
    require_inside(name);
    struct stat info {};
    // Before it is opened: opening a device can set it going.
    if (::fstatat(folder_.get(), name.c_str(), &info, 0) != 0) fail_open(path_of(name), errno);
    require_regular(info, path_of(name));
    Descriptor file(open_following(folder_.get(), name));
    if (file.get() < 0 || ::fstat(file.get(), &info) != 0) fail_open(path_of(name), errno);
    require_regular(info, path_of(name));
    return file;
  }

  static FolderEntry::Kind kind_of(const fs::directory_entry& entry) {
    std::error_code ignored;
    if (entry.is_regular_file(ignored)) return FolderEntry::Kind::file;
    if (!entry.is_directory(ignored)) return FolderEntry::Kind::other;
    return is_output(entry.path()) ? FolderEntry::Kind::output : FolderEntry::Kind::folder;
  }

  using Identity = std::pair<dev_t, ino_t>;

  /// Device and inode of a folder, none of those `above` it.
  Identity identity_of(const std::string& folder, const std::vector<Identity>& above) const {
    struct stat info {};
    if (::stat(path_of(folder).c_str(), &info) != 0) fail_open(path_of(folder), errno);
    const Identity found{info.st_dev, info.st_ino};
    if (std::find(above.begin(), above.end(), found) != above.end())
      throw UserError(
          ExitCode::bad_data,
          fmt::format("{}: a symbolic link that leads back to a folder above it: remove it",
                      path_of(folder)));
    return found;
  }

  /// Visits what matches below `folder` ("" or with '/' at its end); `above`: it and the folders on
  /// the way to it, as far as `**` led there.
  void walk(const std::string& folder, const std::string& pattern, std::vector<Identity>& above,
            const std::function<void(std::string)>& visit) const {
    const size_t slash = pattern.find('/');
    const std::string part = pattern.substr(0, slash);
    const std::string rest = slash == std::string::npos ? "" : pattern.substr(slash + 1);
    const bool last = slash == std::string::npos;
    if (!last && part.find_first_of("*?") == std::string::npos) {
      // A name that the pattern spells out is entered without a look at its neighbours.
      const std::string name = folder + part;
      std::error_code missing;
      if (fs::is_symlink(path_of(name), missing)) {
        struct stat info {};
        if (::stat(path_of(name).c_str(), &info) != 0) fail_open(path_of(name), errno);
      }
      return walk(name + '/', rest, above, visit);
    }
    const bool any_depth = !last && part == "**";
    if (any_depth) {
      if (above.empty()) {
        std::error_code missing;
        if (!fs::is_directory(root_ / folder, missing)) return;
        above.push_back(identity_of(folder, above));
      }
      walk(folder, rest, above, visit);
    }
    for (const auto& entry : entries(folder)) {
      const bool enters = entry.kind == FolderEntry::Kind::folder;
      const std::string name = folder + entry.name;
      if (any_depth) {
        // A link that stands for a file is refused as one, so what it leads to does not matter.
        const std::string file = base_of(pattern);
        if (!enters || (matches_component(file, entry.name) && is_mistaken_link(file, name)))
          continue;
        above.push_back(identity_of(name, above));
        walk(name + '/', pattern, above, visit);
        above.pop_back();
      } else if (matches_component(part, entry.name)) {
        const bool folder_there = enters || entry.kind == FolderEntry::Kind::output;
        if (!last && enters) walk(name + '/', rest, above, visit);
        if (last && (!folder_there || is_mistaken_link(part, name))) visit(name);
      }
    }
    if (any_depth && above.size() == 1) above.pop_back();
  }

  /// A link to a folder under a name that only files have. (A pattern of wildcards alone says
  /// nothing about names.)
  bool is_mistaken_link(const std::string& part, const std::string& name) const {
    std::error_code ignored;
    return part.find_first_not_of("*?") != std::string::npos &&
           fs::is_symlink(path_of(name), ignored);
  }

  fs::path root_;
  Descriptor folder_;
};

}  // namespace

std::shared_ptr<FileStore> FileStore::open(const std::string& root) {
  if (root.empty())
    throw UserError(ExitCode::config, "data.root: is empty: set it to the folder of the corpus");
  if (root.starts_with("s3://") || root.starts_with("gs://") || root.starts_with("gcs://"))
    return open_object_store(root);
  if (const size_t colon = root.find("://"); colon != std::string::npos) {
    throw UserError(
        ExitCode::config,
        fmt::format("data.root: '{}' stores are not supported: use a folder, s3:// or gs://",
                    root.substr(0, colon)));
  }
  return std::make_shared<LocalStore>(root);
}

}  // namespace polysketch
