// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "config/config.hpp"

namespace polysketch {

enum class RecordFormat { text, json_lines, tfrecord, parquet };

/// One form in which a corpus is distributed.
struct CorpusLayout {
  RecordFormat format = RecordFormat::text;
  std::string field = "text";  ///< member, feature or column that holds the text
  std::array<std::vector<std::string>, 3> patterns;  ///< by Split; relative to the root

  const std::vector<std::string>& of(Split split) const {
    return patterns[static_cast<size_t>(split)];
  }
};

/// data/corpora/<name>.yaml.
struct CorpusDescription {
  std::string name;
  std::string summary;
  bool wiki_markup = false;  ///< data.cleaning applies
  bool repair_bytes_literal = false;
  std::string metadata;               ///< CSV without header: id, title, year, link; empty: none
  std::array<int64_t, 3> words{};     ///< published number of words by Split, 0 unknown
  std::vector<CorpusLayout> layouts;  ///< tried in order for each split
};

/// Folders searched for descriptions: the installed share folder beside the program, then the
/// source tree.
std::vector<std::filesystem::path> corpus_description_folders();

/// `name`: of a description in these folders, or the path of a file. Throws UserError 78: unknown
/// (lists the known ones), or wrong (`file:line:column: what`); 66: a path that does not exist.
CorpusDescription load_corpus_description(const std::string& name);

const char* split_name(Split split);
const char* format_name(RecordFormat format);

}  // namespace polysketch
