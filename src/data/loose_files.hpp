// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/corpus.hpp"

namespace polysketch {

/// Text files outside any corpus, as named on a command line. A folder stands for all .txt, .jsonl
/// and .json files in it and below, also with .gz, sorted by name. JSON lines hold the text in the
/// member "text"; every other file is plain text.
/// Throws UserError 66 for a path that does not exist and for a folder without such a file.
std::vector<CorpusFile> find_loose_files(const std::vector<std::string>& paths);

/// Checked like the documents of a corpus; errors and limits as data.on_error and the other keys of
/// `config` say.
std::unique_ptr<DocumentReader> read_loose_file(const CorpusFile& file, const DataConfig& config,
                                                std::shared_ptr<BadRecords> bad);

}  // namespace polysketch
