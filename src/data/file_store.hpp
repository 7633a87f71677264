// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/byte_source.hpp"
#include "data/corpus.hpp"

namespace arrow::io {
class RandomAccessFile;
}

namespace polysketch {

/// The files under one root: a local folder, or a prefix of an object store (s3://bucket/path,
/// gs://bucket/path; credentials, region and endpoint as Arrow takes them, from the environment or
/// the URI's query). Thread-safe.
///
/// Nothing outside the root is ever opened: a name that is absolute, has `..`, leads out through a
/// symbolic link, or is no regular file is a UserError 65.
class FileStore {
 public:
  virtual ~FileStore() = default;

  /// Throws UserError 66 when the root does not exist, 77 when it may not be read, 74 when the
  /// store cannot be reached.
  static std::shared_ptr<FileStore> open(const std::string& root);

  /// Regular files whose path relative to the root matches: `*` and `?` within one path component,
  /// sorted by name.
  virtual std::vector<CorpusFile> list(const std::string& pattern) const = 0;

  virtual std::unique_ptr<ByteSource> open_bytes(const std::string& name) const = 0;
  virtual std::shared_ptr<arrow::io::RandomAccessFile> open_random_access(
      const std::string& name) const = 0;

  /// What identifies the content without reading it: device, inode, size and times of a local file;
  /// size and version tag of an object.
  virtual std::string version_tag(const std::string& name) const = 0;
  virtual bool local() const = 0;
};

/// `*` and `?` do not match '/'.
bool matches_pattern(std::string_view pattern, std::string_view name);

/// Throws UserError 65 unless the name is relative, without `.`/`..` components and without NUL.
void require_inside(const std::string& name);

std::shared_ptr<FileStore> open_object_store(const std::string& uri);

/// Ends the threads of the S3 client, if one was ever needed. The client cannot do that while
/// static objects are being destroyed, so main() calls this last; no store may be used afterwards.
void close_object_stores();

}  // namespace polysketch
