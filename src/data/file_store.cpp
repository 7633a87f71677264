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

[[noreturn]] void fail_open(const std::string& path, int error) {
  switch (error) {
    case EXDEV:
    case ELOOP:
      throw UserError(
          ExitCode::bad_data,
          fmt::format(
              "{}: a symbolic link leads out of the corpus folder: put the file there, or point "
              "data.root at the folder that holds it",
              path));
    case EACCES:
    case EPERM:
      throw UserError(ExitCode::permission,
                      fmt::format("{}: may not be read: change its permissions", path));
    case ENOENT:
    case ENOTDIR:
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: the file is gone: was the corpus changed while it is read?", path));
    default:
      throw_system_error(path, "open", error, exit_code_of_reading(error));
  }
}

/// Component by component without following links: for kernels and sandboxes that refuse openat2.
int open_walking(int root, const std::string& name) {
  Descriptor folder;
  size_t begin = 0;
  while (true) {
    const size_t end = name.find('/', begin);
    const std::string part = name.substr(begin, end == std::string::npos ? end : end - begin);
    const bool last = end == std::string::npos;
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? O_NONBLOCK : O_DIRECTORY);
    const int fd = ::openat(folder.get() >= 0 ? folder.get() : root, part.c_str(), flags);
    if (fd < 0 || last) return fd;
    folder = Descriptor(fd);
    begin = end + 1;
  }
}

int open_beneath(int root, const std::string& name) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;  // a FIFO must not hang the open
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const auto fd = static_cast<int>(::syscall(SYS_openat2, root, name.c_str(), &how, sizeof how));
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL)) return fd;
  return open_walking(root, name);
}

class LocalStore final : public FileStore {
 public:
  explicit LocalStore(const std::string& root) : root_(root) {
    const FileKind kind = kind_of_file(root_);
    if (kind == FileKind::nothing) {
      throw UserError(
          ExitCode::missing_input,
          fmt::format(
              "{}: the corpus folder does not exist: set data.root to the folder of the corpus",
              root));
    }
    if (kind != FileKind::folder) {
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: is not a folder: set data.root to the folder of the corpus", root));
    }
    folder_ = Descriptor(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder_.get() < 0) fail_open(root, errno);
  }

  std::vector<CorpusFile> list(const std::string& pattern) const override {
    std::vector<CorpusFile> files;
    list_into(root_, "", pattern, files);
    std::sort(files.begin(), files.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return files;
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
    Descriptor file(open_beneath(folder_.get(), name));
    if (file.get() < 0) fail_open(path_of(name), errno);
    struct stat info {};
    if (::fstat(file.get(), &info) != 0) fail_open(path_of(name), errno);
    if (!S_ISREG(info.st_mode)) {
      throw UserError(ExitCode::bad_data,
                      fmt::format("{}: is not a regular file: remove it from the corpus folder",
                                  path_of(name)));
    }
    return file;
  }

  void list_into(const fs::path& folder, const std::string& prefix, const std::string& pattern,
                 std::vector<CorpusFile>& files) const {
    const size_t slash = pattern.find('/');
    const std::string part = pattern.substr(0, slash);
    std::error_code error;
    fs::directory_iterator at(folder, error);
    // A pattern may name a folder that this corpus does not have.
    if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory)
      return;
    const fs::directory_iterator end;
    for (std::error_code step; !error && at != end; at.increment(step), error = step) {
      const fs::directory_entry& entry = *at;
      const std::string base = entry.path().filename().string();
      if (!matches_pattern(part, base)) continue;
      const std::string name = prefix + base;
      if (slash != std::string::npos) {
        if (entry.is_directory(step))
          list_into(entry.path(), name + '/', pattern.substr(slash + 1), files);
      } else if (!entry.is_directory(step)) {
        // Opening it shows links out of the root and devices before anything is read.
        const Descriptor file = open_regular(name);
        struct stat info {};
        if (::fstat(file.get(), &info) != 0) fail_open(path_of(name), errno);
        files.push_back({name, path_of(name), static_cast<uint64_t>(info.st_size)});
      }
    }
    if (error == std::errc::permission_denied) fail_open(folder.string(), EACCES);
    if (error) throw_system_error(folder, "read the folder", error.value(), ExitCode::io);
  }

  fs::path root_;
  Descriptor folder_;
};

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0;
  size_t star = std::string_view::npos, star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
    } else if (p < pattern.size() &&
               (pattern[p] == name[n] || (pattern[p] == '?' && name[n] != '/'))) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos && name[star_name] != '/') {
      p = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void require_inside(const std::string& name) {
  bool bad = name.empty() || name.front() == '/' || name.find('\0') != std::string::npos;
  for (size_t begin = 0; !bad && begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part = std::string_view(name).substr(begin, end - begin);
    bad = part.empty() || part == "." || part == "..";
    begin = end + 1;
  }
  if (bad)
    throw UserError(
        ExitCode::bad_data,
        fmt::format("'{}': is not a name inside the corpus folder: use relative names without '..'",
                    name));
}

std::shared_ptr<FileStore> FileStore::open(const std::string& root) {
  if (root.empty())
    throw UserError(ExitCode::config, "data.root: is empty: set it to the folder of the corpus");
  if (root.starts_with("s3://") || root.starts_with("gs://") || root.starts_with("gcs://"))
    return open_object_store(root);
  if (const size_t colon = root.find("://"); colon != std::string::npos) {
    throw UserError(
        ExitCode::config,
        fmt::format("data.root: '{}' stores are not known: use a folder, s3:// or gs://",
                    root.substr(0, colon)));
  }
  return std::make_shared<LocalStore>(root);
}

}  // namespace polysketch
