// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/corpus.hpp"

namespace polysketch {

/// Which files a split was made of: kept in a checkpoint, so that a run does not go on with other
/// text without a word. A place in the data is a number; in other files it means other tokens.
struct CorpusIdentity {
  struct File {
    uint64_t bytes = 0;
    std::string hash;  ///< first 16 digits of the content's hash; empty: never read so far
    /// Reading it has failed: people are told to mend it, so it may hold something else now.
    bool unreadable = false;
    uint64_t counted = 0;  ///< bytes when the run began: what the order of the data goes by
  };
  std::map<std::string, File> files;  ///< by name relative to data.root

  /// Of the files as they are listed now; their hashes are not known yet.
  static CorpusIdentity of(const Corpus& corpus, Split split);
  /// Takes the hashes (or their beginnings) of those that are listed here.
  void note(const std::map<std::string, std::string>& hashes);
  /// Those that are known, but for files that were unreadable.
  std::map<std::string, std::string> hashes() const;
  /// Files that cannot be read. True if one of them was not known as such.
  bool note_unreadable(const std::set<std::string>& names);
  /// For a run that goes on: what the list of its checkpoint knows of the same files.
  void continue_from(const CorpusIdentity& before);
  /// Sizes that the order goes by, of the files where they are not those of today.
  std::map<std::string, uint64_t> counted() const;
  std::vector<std::string> unreadable() const;  ///< names

  nlohmann::json to_json() const;
  /// Throws UserError 81 when the text of a checkpoint cannot be read.
  static CorpusIdentity from_json(const nlohmann::json& json);

  /// What another list has otherwise, for people: "1 new (x.txt), 2 gone (a.txt, b.txt)"; empty if
  /// nothing. Content counts where both know it; files that were unreadable may have changed.
  std::string difference(const CorpusIdentity& now) const;
};

/// Reads the first documents of every file of a split, to find before a long run what would end it
/// later: a split without files or text, a file that cannot be opened, records that are damaged.
/// Looks at 64 MiB of text at the most. Throws what reading throws, UserError 65 if there is no
/// text.
void check_split(const DataConfig& config, Split split);

}  // namespace polysketch
