// SPDX-License-Identifier: Apache-2.0
#include "data/loose_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <set>

#include "data/corpus_reader.hpp"
#include "data/file_pattern.hpp"
#include "data/file_store.hpp"
#include "data/record_reader.hpp"
#include "data/split_files.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

/// A folder of them, seen as a corpus with one split.
const CorpusDescription& loose_files() {
  static const CorpusDescription description = [] {
    CorpusLayout layout;
    layout.patterns[static_cast<size_t>(Split::train)] = {
        "**/*.txt", "**/*.txt.gz", "**/*.jsonl", "**/*.jsonl.gz", "**/*.json", "**/*.json.gz"};
    CorpusDescription made;
    made.layouts.push_back(layout);
    return made;
  }();
  return description;
}

bool holds_json_lines(const std::string& name) {
  for (const char* extension : {".jsonl", ".json", ".jsonl.gz", ".json.gz"}) {
    if (has_extension(name, extension)) return true;
  }
  return false;
}

/// The record that `tokenizer train` writes beside a model: it begins with the name of the recipe.
bool is_tokenizer_record(const FileStore& store, const std::string& name) {
  if (has_extension(name, ".model.json")) return true;
  if (!has_extension(name, ".json")) return false;
  BufferedBytes bytes(store.open_bytes(name), 64);
  std::string head(bytes.head(64));
  std::erase_if(head, [](char c) { return c == ' ' || c == '\n'; });
  return head.starts_with("{\"recipe\":");
}

std::unique_ptr<ByteSource> open_loose(const std::string& name) {
  const fs::path path = fs::absolute(name);
  return FileStore::open(path.parent_path().string())->open_bytes(path.filename().string());
}

/// Where a path leads, so that two names of one file are the same.
std::string identity_of(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  return error ? fs::absolute(path).string() : real.string();
}

class LooseFileFinder {
 public:
  explicit LooseFileFinder(const std::vector<std::string>& outputs) {
    for (const auto& output : outputs) outputs_.insert(identity_of(output));
  }

  void add_file(const std::string& path) {
    const std::string identity = identity_of(path);
    if (outputs_.contains(identity)) refuse_output(path);
    if (!seen_.insert(identity).second) {
      left_out_.push_back({path, kTwice});
      return;
    }
    std::error_code error;
    found_.files.push_back({fs::path(path).filename().string(), path, fs::file_size(path, error)});
  }

  void add_folder(const std::string& path) {
    const auto store = FileStore::open(path);
    const SplitFiles found = find_split_files(*store, loose_files(), Split::train);
    std::set<std::string> written;  // tokenizers and their records
    for (const auto& file : found.files) {
      if (!is_tokenizer_record(*store, file.name)) continue;
      written.insert(file.name);
      written.insert(file.name.substr(0, file.name.size() - std::string_view(".json").size()));
    }
    size_t taken = 0;
    for (const auto& file : found.files) {
      const std::string identity = identity_of(file.path);
      if (written.contains(file.name)) {
        left_out_.push_back({file.path, kWritten});
        continue;
      }
      if (outputs_.contains(identity)) refuse_output(file.path);
      ++taken;
      if (seen_.insert(identity).second) {
        found_.files.push_back(file);
      } else {
        left_out_.push_back({file.path, kTwice});
      }
    }
    for (const auto& one : find_left_out(*store, loose_files(), Split::train, found)) {
      const bool model = has_extension(one.name, ".model") || has_extension(one.name, ".vocab");
      left_out_.push_back({(fs::path(path) / one.name).string(), model ? kWritten
                                                                 : one.reason == kNoPattern
                                                                     ? kOtherKind
                                                                     : one.reason});
    }
    if (taken > 0) return;
    std::string beside;
    if (!left_out_.empty())
      beside = fmt::format(" to read; not read: {}", fmt::join(left_out_lines(left_out_), "; "));
    throw UserError(ExitCode::missing_input,
                    fmt::format("{}: holds no .txt, .jsonl or .json file{}: name other files one "
                                "by one",
                                path, beside));
  }

  LooseFiles finish() {
    found_.left_out = left_out_lines(left_out_);
    return std::move(found_);
  }

 private:
  static constexpr const char* kTwice = "named twice (read once)";
  static constexpr const char* kOtherKind = "of other kinds (read when named one by one)";
  static constexpr const char* kWritten = "of a tokenizer";

  [[noreturn]] static void refuse_output(const std::string& path) {
    throw UserError(ExitCode::usage,
                    fmt::format("--output: {} is one of the input files and would be replaced: "
                                "choose another name",
                                path));
  }
  std::set<std::string> outputs_, seen_;
  LooseFiles found_;
  std::vector<LeftOut> left_out_;
};

}  // namespace

LooseFiles find_loose_files(const std::vector<std::string>& paths,
                            const std::vector<std::string>& outputs) {
  LooseFileFinder finder(outputs);
  for (const auto& path : paths) {
    const FileKind kind = kind_of_file(path);
    std::error_code error;
    if (kind == FileKind::regular) {
      finder.add_file(path);
    } else if (kind == FileKind::folder) {
      finder.add_folder(path);
    } else if (kind != FileKind::nothing) {
      throw UserError(ExitCode::bad_data,
                      fmt::format("{}: is a pipe, socket or device, not a regular file: write the "
                                  "text to a file first",
                                  path));
    } else {
      // A link that leads nowhere says so itself.
      if (fs::is_symlink(path, error)) (void)open_loose(path);
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: no such file or folder: give text files or folders of them", path));
    }
  }
  return finder.finish();
}

std::unique_ptr<DocumentReader> read_loose_file(const CorpusFile& file, const DataConfig& config,
                                                std::shared_ptr<BadRecords> bad) {
  auto source = open_loose(file.path);
  if (has_extension(file.path, ".gz"))
    source = gunzip(std::move(source), file.path, config.on_error);
  RecordLimits limits;
  limits.max_line_bytes = static_cast<uint64_t>(config.max_line_bytes);
  limits.max_document_bytes = static_cast<uint64_t>(config.max_document_bytes);
  auto records = holds_json_lines(file.path)
                     ? read_json_lines(std::move(source), file.path, "text", limits)
                     : read_plain_text(std::move(source), limits);
  DocumentRules rules;
  rules.max_document_bytes = limits.max_document_bytes;
  return read_documents(std::move(records), file.path, rules, std::move(bad));
}

}  // namespace polysketch
