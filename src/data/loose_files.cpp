// SPDX-License-Identifier: Apache-2.0
#include "data/loose_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "data/corpus_reader.hpp"
#include "data/file_store.hpp"
#include "data/record_reader.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/system_error.hpp"

namespace polysketch {
namespace fs = std::filesystem;
namespace {

std::string without_gz(const std::string& name) {
  return name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name;
}

bool holds_json_lines(const std::string& name) {
  const std::string plain = without_gz(name);
  return plain.ends_with(".jsonl") || plain.ends_with(".json");
}

}  // namespace

std::vector<CorpusFile> find_loose_files(const std::vector<std::string>& paths) {
  std::vector<CorpusFile> files;
  for (const auto& path : paths) {
    const FileKind kind = kind_of_file(path);
    std::error_code error;
    if (kind == FileKind::regular) {
      files.push_back({fs::path(path).filename().string(), path, fs::file_size(path, error)});
    } else if (kind == FileKind::folder) {
      const size_t before = files.size();
      fs::recursive_directory_iterator at(path, fs::directory_options::skip_permission_denied,
                                          error);
      const fs::recursive_directory_iterator end;
      for (std::error_code step; !error && at != end; at.increment(step), error = step) {
        const fs::directory_entry& entry = *at;
        const std::string name = entry.path().lexically_relative(path).generic_string();
        std::error_code gone;
        if (!entry.is_regular_file(gone) ||
            !(without_gz(name).ends_with(".txt") || holds_json_lines(name)))
          continue;
        files.push_back({name, entry.path().string(), entry.file_size(gone)});
      }
      if (error) throw_system_error(path, "read the folder", error.value(), ExitCode::io);
      if (files.size() == before) {
        throw UserError(
            ExitCode::missing_input,
            fmt::format("{}: holds no .txt, .jsonl or .json file: name other files one by one",
                        path));
      }
      std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end(),
                [](const auto& a, const auto& b) { return a.name < b.name; });
    } else {
      throw UserError(
          ExitCode::missing_input,
          fmt::format("{}: no such file or folder: give text files or folders of them", path));
    }
  }
  return files;
}

std::unique_ptr<DocumentReader> read_loose_file(const CorpusFile& file, const DataConfig& config,
                                                std::shared_ptr<BadRecords> bad) {
  // The name is the user's own, so it may be a link to anywhere; the folder of what it leads to is
  // the root.
  std::error_code error;
  const fs::path real = fs::canonical(file.path, error);
  if (error)
    throw_system_error(file.path, "open", error.value(), exit_code_of_reading(error.value()));
  auto source = FileStore::open(real.parent_path().string())->open_bytes(real.filename().string());
  if (file.path.ends_with(".gz")) source = gunzip(std::move(source), file.path, config.on_error);
  RecordLimits limits;
  limits.max_line_bytes = static_cast<uint64_t>(config.max_line_bytes);
  limits.max_document_bytes = static_cast<uint64_t>(config.max_document_bytes);
  auto records = holds_json_lines(file.path) ? read_json_lines(std::move(source), "text", limits)
                                             : read_plain_text(std::move(source), limits);
  DocumentRules rules;
  rules.max_document_bytes = limits.max_document_bytes;
  return read_documents(std::move(records), file.path, rules, std::move(bad));
}

}  // namespace polysketch
