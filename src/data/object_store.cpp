// SPDX-License-Identifier: Apache-2.0
#include <arrow/filesystem/filesystem.h>
#include <arrow/io/interfaces.h>
#include <arrow/util/config.h>
#include <arrow/util/key_value_metadata.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <limits>
#include <mutex>

#include "data/file_pattern.hpp"
#include "data/file_store.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using Call = arrow::Status (*)();
std::atomic<Call> finalize_s3 = nullptr;

/// Arrow keeps its S3 client in a library of its own, 17 MB that only those load who read from S3.
void load_s3() {
  static std::once_flag once;
  std::call_once(once, [] {
    Dl_info found{};
    std::string folder;
    if (dladdr(reinterpret_cast<const void*>(&arrow::fs::EnsureFinalized), &found) != 0 &&
        found.dli_fname != nullptr) {
      folder = std::filesystem::path(found.dli_fname).parent_path().string() + '/';
    }
    const std::string library = folder + "libarrow_s3.so." + ARROW_SO_VERSION;
    if (const auto status = arrow::fs::LoadFileSystemFactories(library.c_str()); !status.ok()) {
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: cannot be loaded, and s3:// needs it: run scripts/setup ({})", library,
                      status.message()));
    }
    if (void* loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD)) {
      finalize_s3 = reinterpret_cast<Call>(dlsym(loaded, "_ZN5arrow2fs17EnsureS3FinalizedEv"));
    }
  });
}

class StoreBytes final : public ByteSource {
 public:
  StoreBytes(std::shared_ptr<arrow::io::InputStream> stream, std::string path)
      : stream_(std::move(stream)), path_(std::move(path)) {}
  size_t read(void* data, size_t size) override {
    const auto got = stream_->Read(static_cast<int64_t>(size), data);
    if (!got.ok())
      throw UserError(ExitCode::io,
                      fmt::format("{}: reading failed: {}", path_, got.status().message()));
    return static_cast<size_t>(*got);
  }

 private:
  std::shared_ptr<arrow::io::InputStream> stream_;
  std::string path_;
};

/// The part of a pattern before its first wildcard component: what the store is asked to list.
std::string fixed_folder(const std::string& pattern) {
  const size_t wildcard = pattern.find_first_of("*?");
  const size_t slash =
      wildcard == std::string::npos ? pattern.rfind('/') : pattern.rfind('/', wildcard);
  return slash == std::string::npos ? "" : pattern.substr(0, slash);
}

class ObjectStore final : public FileStore {
 public:
  explicit ObjectStore(const std::string& uri) : scheme_(uri.substr(0, uri.find("://"))) {
    if (scheme_ == "s3") load_s3();
    auto opened = arrow::fs::FileSystemFromUri(uri, &root_);
    if (!opened.ok())
      throw UserError(ExitCode::io,
                      fmt::format("{}: cannot be opened: {}", uri, opened.status().message()));
    system_ = *opened;
    while (!root_.empty() && root_.back() == '/') root_.pop_back();
    const auto info = system_->GetFileInfo(root_);
    if (!info.ok())
      throw UserError(ExitCode::io, fmt::format("{}: the store does not answer: {}", uri,
                                                one_line(info.status().message())));
    if (info->type() == arrow::fs::FileType::NotFound) {
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: nothing is there: set data.root to the prefix of the corpus", uri));
    }
  }

  std::vector<CorpusFile> list(const std::string& pattern) const override {
    const std::string folder = fixed_folder(pattern);
    const std::string rest = folder.empty() ? pattern : pattern.substr(folder.size() + 1);
    const bool any_depth = rest.find("**") != std::string::npos;
    std::vector<CorpusFile> files;
    for (const auto& info : found_below(
             folder, any_depth ? std::numeric_limits<int32_t>::max()
                               : static_cast<int32_t>(std::count(rest.begin(), rest.end(), '/')))) {
      const std::string name = name_of(info);
      if (info.IsFile() && !name.empty() && matches_pattern(pattern, name))
        files.push_back(
            {name, url(name), static_cast<uint64_t>(std::max<int64_t>(info.size(), 0))});
    }
    std::sort(files.begin(), files.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return files;
  }

  std::vector<std::string> names(const std::string& pattern) const override {
    std::vector<std::string> names;
    for (auto& file : list(pattern)) names.push_back(std::move(file.name));
    return names;
  }

  std::vector<FolderEntry> entries(const std::string& folder) const override {
    std::vector<FolderEntry> found;
    for (const auto& info : found_below(folder, 0)) {
      const std::string name = base_of(name_of(info));
      if (!name.empty() && !is_hidden(name))
        found.push_back(
            {name, info.IsDirectory() ? FolderEntry::Kind::folder : FolderEntry::Kind::file});
    }
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return found;
  }

  std::unique_ptr<ByteSource> open_bytes(const std::string& name) const override {
    require_inside(name);
    auto stream = system_->OpenInputStream(root_ + '/' + name);
    if (!stream.ok()) fail(name, stream.status());
    return std::make_unique<StoreBytes>(*stream, url(name));
  }

  std::shared_ptr<arrow::io::RandomAccessFile> open_random_access(
      const std::string& name) const override {
    require_inside(name);
    auto file = system_->OpenInputFile(root_ + '/' + name);
    if (!file.ok()) fail(name, file.status());
    return *file;
  }

  std::string version_tag(const std::string& name) const override {
    const auto file = open_random_access(name);
    const auto size = file->GetSize();
    if (!size.ok()) fail(name, size.status());
    std::string tag = fmt::format("size={}", *size);
    const auto metadata = file->ReadMetadata();
    if (!metadata.ok()) fail(name, metadata.status());
    bool versioned = false;
    for (const char* key : {"ETag", "etag", "VersionId", "generation"}) {
      if (*metadata == nullptr) break;
      if (const auto value = (*metadata)->Get(key); value.ok()) {
        tag += fmt::format(";{}={}", key, *value);
        versioned = true;
      }
    }
    if (!versioned) {
      const auto info = system_->GetFileInfo(root_ + '/' + name);
      if (!info.ok()) fail(name, info.status());
      tag += fmt::format(";modified={}", info->mtime().time_since_epoch().count());
    }
    return tag;
  }

  bool local() const override { return false; }

 private:
  std::vector<arrow::fs::FileInfo> found_below(const std::string& folder, int32_t depth) const {
    arrow::fs::FileSelector selector;
    selector.base_dir = folder.empty() ? root_ : root_ + '/' + folder;
    while (selector.base_dir.ends_with('/')) selector.base_dir.pop_back();
    selector.allow_not_found = true;
    selector.recursive = depth > 0;
    selector.max_recursion = depth;
    const auto found = system_->GetFileInfo(selector);
    if (!found.ok())
      throw UserError(ExitCode::io, fmt::format("{}: cannot be listed: {}", url(folder),
                                                one_line(found.status().message())));
    return *found;
  }
  /// Relative to the root; empty for the root itself.
  std::string name_of(const arrow::fs::FileInfo& info) const {
    return info.path().starts_with(root_ + '/') ? info.path().substr(root_.size() + 1) : "";
  }
  static std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  }
  std::string url(const std::string& name) const {
    return scheme_ + "://" + root_ + (name.empty() ? "" : "/" + name);
  }
  [[noreturn]] void fail(const std::string& name, const arrow::Status& status) const {
    throw UserError(ExitCode::io,
                    fmt::format("{}: cannot be read: {}", url(name), one_line(status.message())));
  }

  std::string scheme_;
  std::string root_;  // bucket/prefix
  std::shared_ptr<arrow::fs::FileSystem> system_;
};

}  // namespace

void close_object_stores() {
  if (const Call finalize = finalize_s3.exchange(nullptr)) (void)finalize();
}

std::shared_ptr<FileStore> open_object_store(const std::string& uri) {
  return std::make_shared<ObjectStore>(uri);
}

}  // namespace polysketch
