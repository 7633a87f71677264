// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace polysketch {

/// A file that is either wholly there under its final name or not there at all, even if the machine
/// loses power. Writes go to `<final>.tmp-<pid>-<n>` beside it; commit() does fsync(file), close,
/// rename, fsync(folder), in this order. A DurableFile that is destroyed before commit() removes
/// the temporary file. A failed fsync is never retried. All calls throw UserError
/// with exit code 73 (cannot create), 77 (permission) or 74 (I/O; ENOSPC says bytes needed and
/// free).
class DurableFile {
 public:
  /// permissions: before the umask takes its part.
  explicit DurableFile(std::filesystem::path final_path, unsigned permissions = 0644);
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  ~DurableFile();

  /// Asks the file system for the space now, so that a full disk shows before anything is written.
  void reserve(uint64_t bytes);
  void write(const void* data, size_t size);  ///< completes short writes and EINTR
  void commit();
  /// The same, but false if the name is taken by a file that cannot be replaced (one that is
  /// mounted there).
  bool commit_unless_busy();
  /// Permissions and owner of the file that will be replaced, if there is one.
  void keep_attributes();
  uint64_t bytes_written() const { return written_; }

  /// errno of the attempt to begin a file there, 0 if it could be begun. Leaves nothing.
  static int refusal(const std::filesystem::path& final_path);

 private:
  [[noreturn]] void fail(const char* action, int error, uint64_t needed = 0);

  std::filesystem::path final_path_;
  std::filesystem::path temporary_path_;
  int fd_ = -1;
  uint64_t written_ = 0;
  uint64_t reserved_ = 0;
};

/// Removes the temporary file of every DurableFile of this process, and lets none be begun any
/// more. For whoever ends the process at once, without giving destructors a chance.
void remove_temporary_files();

/// Whole content through a DurableFile.
void write_file_durably(const std::filesystem::path& path, std::string_view content);

/// fsync of a folder: makes renames and unlinks in it durable.
void fsync_directory(const std::filesystem::path& directory);

/// rename, then fsync of the target's folder. Works for files and folders.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// What is behind a name, links followed. Nothing if there is nothing, or its folder is none.
/// Throws UserError where the system does not say (66 for a chain of links without an end or a name
/// that is too long, 77, 74).
enum class FileKind { nothing, regular, folder, other };
FileKind kind_of_file(const std::filesystem::path& path);

/// Whole content of a file. Throws UserError 66 if missing, 77 or 74 if unreadable, 65 if larger
/// than `limit` bytes.
std::string read_file(const std::filesystem::path& path, uint64_t limit = uint64_t{1} << 30);

/// Creates the folder and its parents. Throws UserError 73 or 77 with the reason. Call it with the
/// namespace: a path argument brings std::filesystem::create_directories in too.
void create_directories(const std::filesystem::path& path);

}  // namespace polysketch
