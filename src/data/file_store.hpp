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

/// What stands in a folder. Hidden names (is_hidden) are never among it.
struct FolderEntry {
  enum class Kind {
    file,    ///< a regular file, or a link to one
    folder,  ///< a folder, or a link to one
    output,  ///< a folder that this program wrote: a run, a checkpoint, a token cache
    other    ///< a pipe, socket or device, or a link that leads nowhere
  };
  std::string name;  ///< in its folder
  Kind kind = Kind::file;
};

/// The files under one root: a local folder, or a prefix of an object store (s3://bucket/path,
/// gs://bucket/path; credentials, region and endpoint as Arrow takes them, from the environment or
/// the URI's query). Thread-safe.
///
/// A name never leads out of the root: one that is absolute or has `..` is a UserError 65. Symbolic
/// links are followed wherever they lead, since whoever named the root put them there: the cache of
/// a model hub is made of them, and so are corpora that lie on several volumes. What is no regular
/// file in the end (a device, a pipe, a folder) and links through /proc are a UserError 65, and so
/// is a circle of links; a link to nothing is a UserError 66.
class FileStore {
 public:
  virtual ~FileStore() = default;

  /// Throws UserError 66 when the root does not exist, 77 when it may not be read, 74 when the
  /// store cannot be reached.
  static std::shared_ptr<FileStore> open(const std::string& root);

  /// Files whose path relative to the root matches (matches_pattern), sorted by name. Wildcards do
  /// not lead into folders that this program wrote. Throws for what matches and is no regular file.
  virtual std::vector<CorpusFile> list(const std::string& pattern) const = 0;
  /// The names alone, whatever stands behind them.
  virtual std::vector<std::string> names(const std::string& pattern) const = 0;
  /// What stands in a folder ("": the root), sorted by name; nothing if there is no such folder.
  virtual std::vector<FolderEntry> entries(const std::string& folder) const = 0;

  virtual std::unique_ptr<ByteSource> open_bytes(const std::string& name) const = 0;
  virtual std::shared_ptr<arrow::io::RandomAccessFile> open_random_access(
      const std::string& name) const = 0;

  /// What identifies the content without reading it: device, inode, size and times of a local file
  /// (of a link what it leads to);
  /// size and version tag of an object.
  virtual std::string version_tag(const std::string& name) const = 0;
  virtual bool local() const = 0;
};

std::shared_ptr<FileStore> open_object_store(const std::string& uri);

/// Ends the threads of the S3 client, if one was ever needed. The client cannot do that while
/// static objects are being destroyed, so main() calls this last; no store may be used afterwards.
void close_object_stores();

}  // namespace polysketch
