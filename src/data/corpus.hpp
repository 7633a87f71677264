// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "data/document.hpp"

namespace polysketch {

/// One file of a split.
struct CorpusFile {
  std::string name;  ///< path relative to the corpus root, '/' separated: the same on every machine
  std::string path;  ///< local path or s3://, gs:// URI
  uint64_t bytes = 0;
};

/// What was left out, and why. Shared by all readers of a corpus; thread-safe.
class BadRecords {
 public:
  BadRecords(OnError policy, double max_fraction, int64_t max_in_a_row);

  /// Where a JSON line for each skipped record goes (file, byte offset, cause; no text). Optional.
  void write_samples_to(const std::string& path);

  /// Reports one bad record. Throws UserError 65 (`file: record N, byte M: cause: what to do`)
  /// under policy `error` or when a limit of policy `skip` is reached; otherwise counts it.
  void report(const std::string& file, uint64_t record, uint64_t offset, const std::string& cause);
  void good();  ///< one good record was read

  struct Counts {
    int64_t good = 0, bad = 0, empty = 0;
    int64_t split = 0;  ///< documents over data.max_document_bytes, read as several
    std::map<std::string, int64_t> by_cause;
    std::map<std::string, int64_t> by_file;
    std::map<std::string, int64_t> empty_by_cause;  ///< blank text, null
  };
  Counts counts() const;
  /// A record whose text is blank or null: never an error, never a document.
  void count_empty(const std::string& cause);
  void count_split();  ///< a document that was too long to stay whole
  OnError policy() const { return policy_; }

  /// `3 x invalid UTF-8, 1 x ... in a.jsonl (3), b.jsonl (1)`: one line for messages and the end of
  /// a run.
  std::string summary() const;
  /// `blank text (2), column 'text' is null (1)`; empty: there were none.
  std::string empty_summary() const;

 private:
  mutable std::mutex mutex_;
  OnError policy_;
  double max_fraction_;
  int64_t max_in_a_row_;
  int64_t in_a_row_ = 0;
  Counts counts_;
  std::string samples_path_;
  int64_t samples_ = 0;
};

/// A corpus on disk or in an object store, described by data/corpora/<name>.yaml: which files make
/// up a split, how documents stand in them, how they are cleaned.
class Corpus {
 public:
  /// Reads the description, checks that the root exists. Throws UserError 78 (unknown corpus, lists
  /// the known ones), 66 (root or split missing, says what was looked for), 65.
  static Corpus open(const DataConfig& config);

  /// The files of a split in a fixed order (sorted by name). Throws UserError 66 when there are
  /// none, naming what was looked for, the splits that there are and folders that would do as the
  /// root. The first call for a split warns of what is left out.
  std::vector<CorpusFile> files(Split split) const;

  /// The splits that have files.
  std::vector<Split> splits() const;

  /// What a split consists of, for one line to people.
  struct SplitSummary {
    std::string corpus;
    std::string format;    ///< text, json_lines, tfrecord or parquet
    std::string patterns;  ///< of the layout that was found: `train/*.txt, train/*.txt.gz`
    int64_t files = 0;
    uint64_t bytes = 0;  ///< as they lie on the disk
  };
  /// Throws like files().
  SplitSummary summary(Split split) const;

  /// What stands beside the files of a split and is not read, a line for each reason: other
  /// layouts, unknown names, folders that are not looked into. Empty: nothing.
  std::vector<std::string> left_out(Split split) const;

  /// A reader for one of the files, decoded and cleaned according to the description.
  std::unique_ptr<DocumentReader> read(const CorpusFile& file) const;

  /// SHA-256 of a file's raw bytes (object stores: of name, size and the store's version tag).
  /// Local results are remembered in `<cache>/file-hashes/` by device, inode, size, mtime and
  /// ctime.
  std::string content_hash(const CorpusFile& file) const;

  /// What content_hash() has found so far, by name of the file.
  std::map<std::string, std::string> known_hashes() const;
  /// From now on content_hash() throws UserError 65 for a file of this list whose hash begins
  /// otherwise: a run must not go on with text that was rewritten under it.
  void expect_hashes(std::map<std::string, std::string> beginnings);

  /// Names of the files whose reading has failed so far: what they hold may be mended.
  std::set<std::string> unreadable() const;
  /// files() gives these sizes, by name, from now on. The order of the training data goes by the
  /// sizes that the files had when the run began, also where one was mended since.
  void count_as(std::map<std::string, uint64_t> bytes);

  /// Text that identifies everything besides raw bytes and tokenizer that decides the tokens:
  /// format, fields, cleaning and its version.
  std::string processing_id() const;

  const std::string& name() const;

  /// What metadata.csv says of a PG-19 book.
  struct Book {
    std::string title, year, link;
  };
  /// The book of a file, by the id in its name; nothing for other corpora and for books that the
  /// list lacks.
  std::optional<Book> book(const CorpusFile& file) const;

  /// Published number of words of the full split (PG-19), 0 if the corpus has none.
  int64_t published_words(Split split) const;
  BadRecords& bad_records() const;

 private:
  [[noreturn]] void fail_without_files(Split split) const;
  std::unique_ptr<DocumentReader> open_documents(const CorpusFile& file) const;

  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace polysketch
