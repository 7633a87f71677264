// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/corpus.hpp"

namespace polysketch {

/// Text files outside any corpus, and what was left out of them.
struct LooseFiles {
  std::vector<CorpusFile> files;
  std::vector<std::string> left_out;  ///< a line for each reason
};

/// Text files as named on a command line. A folder stands for all .txt, .jsonl and .json files in
/// it and below, also with .gz, sorted by name; without hidden ones and without what this program
/// wrote: runs, token caches, tokenizers with their records, and `outputs`, the files that the
/// command is going to write. A file that is named twice, or lies in a folder that is named too,
/// comes once. JSON lines hold the text in the member "text"; every other file is plain text.
///
/// Throws UserError 66 for a path that does not exist and for a folder without such a file; 64 for
/// an output that is named as an input, or that would replace somebody's text; 65 for what is no
/// regular file.
LooseFiles find_loose_files(const std::vector<std::string>& paths,
                            const std::vector<std::string>& outputs = {});

/// Checked like the documents of a corpus; errors and limits as data.on_error and the other keys of
/// `config` say.
std::unique_ptr<DocumentReader> read_loose_file(const CorpusFile& file, const DataConfig& config,
                                                std::shared_ptr<BadRecords> bad);

}  // namespace polysketch
