// SPDX-License-Identifier: Apache-2.0
#include "data/corpus_description.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "data/file_pattern.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/text.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxDescriptionBytes = uint64_t{1} << 20;
constexpr std::array<const char*, 3> kSplits = {"train", "validation", "test"};
constexpr std::array<const char*, 4> kFormats = {"text", "json_lines", "tfrecord", "parquet"};

/// `**` at most once, and as a whole component before the last.
bool is_sound_any_depth(const std::string& pattern) {
  const size_t at = pattern.find("**");
  if (at == std::string::npos) return true;
  return (at == 0 || pattern[at - 1] == '/') && pattern.substr(at + 2, 1) == "/" &&
         pattern.find("**", at + 2) == std::string::npos;
}

class DescriptionParser {
 public:
  explicit DescriptionParser(std::string file) : file_(std::move(file)) {}

  CorpusDescription parse(const std::string& content) {
    if (const std::string other = foreign_encoding(content); !other.empty())
      throw UserError(ExitCode::config, fmt::format("{}:1:1: {}", file_, other));
    YAML::Node root;
    try {
      root = YAML::Load(content);
    } catch (const YAML::Exception& error) {
      throw UserError(ExitCode::config, fmt::format("{}:{}:{}: {}", file_, error.mark.line + 1,
                                                    error.mark.column + 1, error.msg));
    }
    check_map(root, {"name", "summary", "markup", "repair_bytes_literal", "metadata", "words",
                     "layouts"});
    CorpusDescription description;
    description.name = text(root, "name", "");
    if (description.name.empty()) fail(root, "'name' is missing");
    description.summary = text(root, "summary", "");
    const std::string markup = text(root, "markup", "none");
    if (markup != "none" && markup != "wiki40b")
      fail(root["markup"], fmt::format("markup: got '{}', want none or wiki40b", markup));
    description.wiki_markup = markup == "wiki40b";
    const std::string repair = text(root, "repair_bytes_literal", "false");
    if (repair != "true" && repair != "false")
      fail(root["repair_bytes_literal"], "repair_bytes_literal: want true or false");
    description.repair_bytes_literal = repair == "true";
    description.metadata = text(root, "metadata", "");
    if (const auto words = root["words"]) parse_words(words, description);
    const auto layouts = root["layouts"];
    if (!layouts || !layouts.IsSequence() || layouts.size() == 0)
      fail(root, "'layouts' must be a list of at least one");
    for (const auto& layout : layouts) description.layouts.push_back(parse_layout(layout));
    return description;
  }

 private:
  [[noreturn]] void fail(const YAML::Node& node, const std::string& what) const {
    const auto mark = node ? node.Mark() : YAML::Mark();
    throw UserError(ExitCode::config,
                    fmt::format("{}:{}:{}: {}", file_, mark.line + 1, mark.column + 1, what));
  }

  void check_map(const YAML::Node& node, const std::vector<std::string>& known) const {
    if (!node.IsMap()) fail(node, "want a map");
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const auto key = entry.first.IsScalar() ? entry.first.Scalar() : std::string();
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        const auto near = nearest(key, known);
        fail(entry.first, fmt::format("unknown key '{}'{}", key,
                                      near ? fmt::format("; did you mean '{}'?", *near) : ""));
      }
      if (!seen.insert(key).second) fail(entry.first, fmt::format("key '{}' appears twice", key));
    }
  }

  std::string text(const YAML::Node& node, const char* key, const char* otherwise) const {
    const auto value = node[key];
    if (!value) return otherwise;
    if (!value.IsScalar()) fail(value, fmt::format("{}: want text", key));
    return value.Scalar();
  }

  void parse_words(const YAML::Node& node, CorpusDescription& description) const {
    check_map(node, {kSplits.begin(), kSplits.end()});
    for (size_t split = 0; split < kSplits.size(); ++split) {
      if (!node[kSplits[split]]) continue;
      const auto count = parse_count(text(node, kSplits[split], ""));
      if (!count) fail(node[kSplits[split]], "words: want a count");
      description.words[split] = *count;
    }
  }

  CorpusLayout parse_layout(const YAML::Node& node) const {
    check_map(node, {"format", "field", "train", "validation", "test"});
    CorpusLayout layout;
    const std::string format = text(node, "format", "");
    const auto* const found = std::find(kFormats.begin(), kFormats.end(), format);
    if (found == kFormats.end())
      fail(node,
           fmt::format("format: got '{}', want one of {}", format, fmt::join(kFormats, ", ")));
    layout.format = static_cast<RecordFormat>(found - kFormats.begin());
    layout.field = text(node, "field", "text");
    for (size_t split = 0; split < kSplits.size(); ++split) {
      const auto patterns = node[kSplits[split]];
      if (!patterns) continue;
      if (!patterns.IsSequence())
        fail(patterns, fmt::format("{}: want a list of file patterns", kSplits[split]));
      for (const auto& pattern : patterns) {
        if (!pattern.IsScalar() || pattern.Scalar().empty() || pattern.Scalar().front() == '/' ||
            pattern.Scalar().find("..") != std::string::npos) {
          fail(pattern, "want a pattern relative to the root, without '..'");
        }
        if (!is_sound_any_depth(pattern.Scalar()))
          fail(pattern,
               "'**' stands for folders: want it once, between slashes, as in train/**/*.txt");
        layout.patterns[split].push_back(pattern.Scalar());
      }
    }
    return layout;
  }

  std::string file_;
};

std::vector<std::string> known_corpora() {
  std::set<std::string> names;
  for (const auto& folder : corpus_description_folders()) {
    std::error_code error;
    fs::directory_iterator at(folder, error);
    for (const fs::directory_iterator end; !error && at != end; at.increment(error)) {
      if (at->path().extension() == ".yaml" && !is_hidden(at->path().filename().string()))
        names.insert(at->path().stem().string());
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace

const char* split_name(Split split) { return kSplits[static_cast<size_t>(split)]; }
const char* format_name(RecordFormat format) { return kFormats[static_cast<size_t>(format)]; }

std::vector<fs::path> corpus_description_folders() {
  std::vector<fs::path> folders;
  std::error_code error;
  if (const fs::path program = fs::read_symlink("/proc/self/exe", error); !error) {
    folders.push_back(program.parent_path().parent_path() / "share" / "polysketch" / "corpora");
  }
  folders.emplace_back(POLYSKETCH_CORPORA);  // of the clone it was built from
  std::erase_if(folders, [](const fs::path& folder) {
    std::error_code ignored;
    return !fs::is_directory(folder, ignored);
  });
  return folders;
}

CorpusDescription load_corpus_description(const std::string& name) {
  const bool is_path = name.find('/') != std::string::npos || name.ends_with(".yaml");
  if (is_path) return DescriptionParser(name).parse(read_file(name, kMaxDescriptionBytes));
  for (const auto& folder : corpus_description_folders()) {
    const fs::path file = folder / (name + ".yaml");
    std::error_code error;
    if (!name.empty() && fs::is_regular_file(file, error))
      return DescriptionParser(file.string()).parse(read_file(file, kMaxDescriptionBytes));
  }
  const auto known = known_corpora();
  const auto near = nearest(name, known);
  throw UserError(
      ExitCode::config,
      fmt::format(
          "data.corpus: got '{}', want one of {} or the path of a description{}", name,
          known.empty() ? "(no description found)" : fmt::format("{}", fmt::join(known, ", ")),
          near ? fmt::format("; did you mean '{}'?", *near) : ""));
}

}  // namespace polysketch
