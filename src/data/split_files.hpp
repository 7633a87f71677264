// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "data/corpus.hpp"
#include "data/corpus_description.hpp"
#include "data/file_store.hpp"

namespace polysketch {

/// The files of a split, and the layout that they were found by.
struct SplitFiles {
  const CorpusLayout* layout = nullptr;  ///< null: no layout has files of the split
  std::vector<CorpusFile> files;         ///< sorted by name
};

/// By the first layout that has any. Throws UserError 65 when they stand in several folders, which
/// may be several copies.
SplitFiles find_split_files(const FileStore& store, const CorpusDescription& description,
                            Split split);

/// Whether any layout has files of the split; looks at names only.
bool has_split_files(const FileStore& store, const CorpusDescription& description, Split split);

/// Why most files are left out.
inline constexpr const char* kNoPattern = "that no pattern takes";

/// What stands where the files of a split stand and is not read: files of another layout, names
/// that no pattern takes, folders that the corpus does not look into. Files of other splits and
/// hidden ones are not among it.
struct LeftOut {
  std::string name;    ///< a folder's ends with '/'
  std::string reason;  ///< reads on from `files …`
};
std::vector<LeftOut> find_left_out(const FileStore& store, const CorpusDescription& description,
                                   Split split, const SplitFiles& found);

/// One line for each reason: `2 files that no pattern takes: train/a.md, train/b.pdf`.
std::vector<std::string> left_out_lines(const std::vector<LeftOut>& left_out);

/// Folders below the root that would do as the root: what to tell somebody whose root is a folder
/// or two too high. At most three; looks a few folders deep.
std::vector<std::string> likely_roots(const FileStore& store, const CorpusDescription& description,
                                      Split split);

/// The patterns of all layouts for a split, as people read them.
std::string shown_patterns(const std::vector<std::string>& patterns);

}  // namespace polysketch
