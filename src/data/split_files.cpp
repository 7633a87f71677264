// SPDX-License-Identifier: Apache-2.0
#include "data/split_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>

#include "data/file_pattern.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr std::array<Split, 3> kSplits = {Split::train, Split::validation, Split::test};

SplitFiles files_of_layout(const FileStore& store, const CorpusLayout& layout, Split split) {
  std::map<std::string, CorpusFile> found;
  std::set<std::string> folders;
  for (const auto& pattern : layout.of(split)) {
    for (auto& file : store.list(pattern)) {
      folders.insert(shared_folder_of(pattern, file.name));
      found.emplace(file.name, std::move(file));
    }
  }
  if (folders.size() > 1) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("data.root: the {} files of this corpus stand in several folders "
                                "({}), which may be several copies: point data.root at one of them",
                                split_name(split), fmt::join(folders, ", ")));
  }
  SplitFiles files{&layout, {}};
  for (auto& [name, file] : found) files.files.push_back(std::move(file));
  return files;
}

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(pattern, name); });
}

/// Goes through the folders of a split and names what is left out.
class LeftOutFinder {
 public:
  LeftOutFinder(const FileStore& store, const CorpusDescription& description, Split split,
                const SplitFiles& found)
      : store_(store), description_(description), split_(split), found_(found) {
    for (const auto& file : found.files) taken_.insert(file.name);
  }

  std::vector<LeftOut> find() {
    for (const auto& layout : description_.layouts) {
      if (&layout == found_.layout) continue;
      for (const auto& pattern : layout.of(split_)) {
        for (const auto& name : store_.names(pattern)) {
          if (found_.layout != nullptr)
            add(name, fmt::format("of another layout ({})", format_name(layout.format)));
        }
      }
    }
    for (const auto& layout : description_.layouts) {
      if (found_.layout != nullptr && &layout != found_.layout) continue;
      for (const auto& pattern : layout.of(split_)) look_around(pattern);
    }
    std::vector<LeftOut> all;
    for (auto& [name, reason] : left_out_) all.push_back({name, reason});
    return all;
  }

 private:
  /// Into the folders that hold the split's files; with `**` into all below them.
  void look_around(const std::string& pattern) {
    std::set<std::string> folders;
    for (const auto& name : taken_) {
      if (matches_pattern(pattern, name)) folders.insert(shared_folder_of(pattern, name));
    }
    const std::string folder = parent_of(pattern);
    const size_t any_depth = folder.find("**");
    const std::string fixed = folder.substr(0, any_depth == 0 ? 0 : any_depth - 1);
    if (fixed.find_first_of("*?") == std::string::npos) folders.insert(fixed);
    for (const auto& one : folders)
      look_into(one, family_of(pattern), any_depth != std::string::npos);
  }

  void look_into(const std::string& folder, const std::string& family, bool any_depth) {
    if (!seen_.emplace(folder, family).second) return;
    for (const auto& entry : store_.entries(folder)) {
      const std::string name = folder.empty() ? entry.name : folder + '/' + entry.name;
      if (entry.kind == FolderEntry::Kind::output) {
        if (any_depth) add(name + '/', "written by polysketch");
      } else if (entry.kind == FolderEntry::Kind::folder && any_depth) {
        look_into(name, family, any_depth);
      } else if (ascii_lower(entry.name).starts_with(family) && !is_of_another_part(name)) {
        const bool is_folder = entry.kind == FolderEntry::Kind::folder;
        if (is_folder && holds_files_of_corpus(name + '/')) continue;
        add(is_folder ? name + '/' : name, is_folder ? "that this corpus does not look into"
                                                     : unread_form(name).value_or(kNoPattern));
      }
    }
  }

  bool holds_files_of_corpus(const std::string& folder) const {
    return std::any_of(taken_.begin(), taken_.end(),
                       [&](const std::string& name) { return name.starts_with(folder); }) ||
           std::any_of(left_out_.begin(), left_out_.end(),
                       [&](const auto& one) { return one.first.starts_with(folder); });
  }

  /// A file of another split, or the list of titles.
  bool is_of_another_part(const std::string& name) const {
    if (!description_.metadata.empty() && matches_pattern(description_.metadata, name)) return true;
    for (const auto& layout : description_.layouts) {
      for (const Split other : kSplits) {
        if (other != split_ && matches_any(layout.of(other), name)) return true;
      }
    }
    return false;
  }

  void add(const std::string& name, const std::string& reason) {
    if (!taken_.contains(name)) left_out_.emplace(name, reason);
  }

  const FileStore& store_;
  const CorpusDescription& description_;
  const Split split_;
  const SplitFiles& found_;
  std::set<std::string> taken_;
  std::set<std::pair<std::string, std::string>> seen_;
  std::map<std::string, std::string> left_out_;  // name -> reason
};

}  // namespace

SplitFiles find_split_files(const FileStore& store, const CorpusDescription& description,
                            Split split) {
  for (const auto& layout : description.layouts) {
    SplitFiles found = files_of_layout(store, layout, split);
    if (!found.files.empty()) return found;
  }
  return {};
}

bool has_split_files(const FileStore& store, const CorpusDescription& description, Split split) {
  for (const auto& layout : description.layouts) {
    for (const auto& pattern : layout.of(split)) {
      if (!store.names(pattern).empty()) return true;
    }
  }
  return false;
}

std::vector<LeftOut> find_left_out(const FileStore& store, const CorpusDescription& description,
                                   Split split, const SplitFiles& found) {
  return LeftOutFinder(store, description, split, found).find();
}

std::vector<std::string> left_out_lines(const std::vector<LeftOut>& left_out) {
  constexpr size_t kNamed = 3;
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const auto& one : left_out)
    by_reason[(one.name.ends_with('/') ? "folder " : "file ") + one.reason].push_back(one.name);
  std::vector<std::string> lines;
  for (auto& [reason, names] : by_reason) {
    const size_t count = names.size();
    names.resize(std::min(count, kNamed));
    std::string what = reason;
    if (count > 1) what.insert(what.find(' '), "s");
    lines.push_back(fmt::format("{} {}: {}{}", count, what, fmt::join(names, ", "),
                                count > kNamed ? ", …" : ""));
  }
  return lines;
}

std::vector<std::string> likely_roots(const FileStore& store, const CorpusDescription& description,
                                      Split split) {
  constexpr int kFolders = 500;
  constexpr size_t kMost = 3;
  constexpr std::ptrdiff_t kDeepest = 4;
  std::vector<std::string> found;
  std::deque<std::string> waiting;
  const auto enqueue = [&](const std::string& folder) {
    for (const auto& entry : store.entries(folder)) {
      if (entry.kind == FolderEntry::Kind::folder)
        waiting.push_back(folder.empty() ? entry.name : folder + '/' + entry.name);
    }
  };
  enqueue("");
  for (int looked = 0; looked < kFolders && !waiting.empty() && found.size() < kMost; ++looked) {
    const std::string folder = waiting.front();
    waiting.pop_front();
    try {
      bool fits = false;
      for (const auto& layout : description.layouts) {
        for (const auto& pattern : layout.of(split))
          fits = fits || !store.names(folder + '/' + pattern).empty();
      }
      if (fits) {
        found.push_back(folder);
      } else if (std::count(folder.begin(), folder.end(), '/') + 1 < kDeepest) {
        enqueue(folder);
      }
    } catch (const UserError&) {  // a folder that may not be read, a link to nothing
    }
  }
  return found;
}

std::string shown_patterns(const std::vector<std::string>& patterns) {
  std::vector<std::string> shown;
  bool below = false;
  for (const auto& pattern : patterns) {
    shown.push_back(shown_pattern(pattern));
    below = below || shown.back() != pattern;
  }
  return fmt::format("{}{}", fmt::join(shown, ", "), below ? " (also in folders below)" : "");
}

}  // namespace polysketch
