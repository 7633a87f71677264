// SPDX-License-Identifier: Apache-2.0
#include "data/corpus.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "data/cleaning.hpp"
#include "data/corpus_description.hpp"
#include "data/corpus_reader.hpp"
#include "data/file_store.hpp"
#include "data/record_reader.hpp"
#include "data/token_cache.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace fs = std::filesystem;

struct Corpus::State {
  State(const DataConfig& data, CorpusDescription found)
      : config(data),
        description(std::move(found)),
        store(FileStore::open(data.root)),
        bad(std::make_shared<BadRecords>(data.on_error, data.max_bad_fraction,
                                         data.max_bad_in_a_row)) {
    std::error_code error;
    if (store->local()) canonical_root = fs::weakly_canonical(data.root, error).string();
  }

  DataConfig config;
  CorpusDescription description;
  std::shared_ptr<FileStore> store;
  std::shared_ptr<BadRecords> bad;
  std::string canonical_root;
  std::once_flag metadata_read;
  std::map<std::string, Corpus::Book> books;  // by id
  std::mutex hashes_mutex;
  std::map<std::string, std::string> hashes, expected_hashes;  // by name of the file

  std::string hash_of(const CorpusFile& file) const;
};

namespace {

std::string parent_of(const std::string& name) {
  const size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

std::vector<CorpusFile> matching_files(const FileStore& store, const CorpusLayout& layout,
                                       Split split) {
  std::map<std::string, CorpusFile> found;
  for (const auto& pattern : layout.of(split)) {
    for (auto& file : store.list(pattern)) found.emplace(file.name, std::move(file));
  }
  std::vector<CorpusFile> files;
  std::set<std::string> folders;
  for (auto& [name, file] : found) {
    folders.insert(parent_of(name));
    files.push_back(std::move(file));
  }
  if (folders.size() > 1) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("data.root: the {} files of this corpus stand in several folders "
                                "({}), which may be several copies: point "
                                "data.root at one of them",
                                split_name(split), fmt::join(folders, ", ")));
  }
  return files;
}

/// `…-00003-of-01024…` says how many there should be.
void note_missing_shards(const std::vector<CorpusFile>& files, const std::string& corpus,
                         Split split) {
  const std::string& name = files.front().name;
  const size_t at = name.rfind("-of-");
  if (at == std::string::npos) return;
  const size_t wanted = std::strtoull(name.c_str() + at + 4, nullptr, 10);
  if (wanted > files.size()) {
    log_info(fmt::format("{} {}: {} of {} files are here: a part of the corpus", corpus,
                         split_name(split), files.size(), wanted));
  }
}

std::string read_all(ByteSource& source) {
  std::string text, buffer(size_t{1} << 16, '\0');
  while (const size_t got = source.read(buffer.data(), buffer.size())) text.append(buffer, 0, got);
  return text;
}

}  // namespace

Corpus Corpus::open(const DataConfig& config) {
  CorpusDescription description = load_corpus_description(config.corpus);
  if (config.cleaning != Cleaning::none && !description.wiki_markup) {
    throw UserError(
        ExitCode::config,
        fmt::format(
            "data.cleaning: is for Wiki-40B's markup, and corpus '{}' has none: set it to none",
            description.name));
  }
  Corpus corpus;
  corpus.state_ = std::make_shared<State>(config, std::move(description));
  return corpus;
}

std::vector<CorpusFile> Corpus::files(Split split) const {
  std::vector<std::string> tried;
  for (const auto& layout : state_->description.layouts) {
    auto files = matching_files(*state_->store, layout, split);
    if (!files.empty()) {
      note_missing_shards(files, name(), split);
      return files;
    }
    tried.insert(tried.end(), layout.of(split).begin(), layout.of(split).end());
  }
  throw UserError(ExitCode::missing_input,
                  fmt::format("{}: no {} files of corpus '{}'; looked for {}: set data.root to the "
                              "folder that holds them",
                              state_->config.root, split_name(split), name(),
                              tried.empty() ? "nothing, since it has no such split"
                                            : fmt::format("{}", fmt::join(tried, ", "))));
}

std::unique_ptr<DocumentReader> Corpus::read(const CorpusFile& file) const {
  require_inside(file.name);
  const CorpusLayout* layout = nullptr;
  for (const auto& candidate : state_->description.layouts) {
    for (const auto& patterns : candidate.patterns) {
      for (const auto& pattern : patterns) {
        if (layout == nullptr && matches_pattern(pattern, file.name)) layout = &candidate;
      }
    }
  }
  if (layout == nullptr) {
    throw UserError(
        ExitCode::bad_data,
        fmt::format("{}: no pattern of corpus '{}' knows this name: list the files anew", file.name,
                    name()));
  }
  RecordLimits limits;
  limits.max_line_bytes = static_cast<uint64_t>(state_->config.max_line_bytes);
  limits.max_document_bytes = static_cast<uint64_t>(state_->config.max_document_bytes);
  const auto bytes = [&] {
    auto source = state_->store->open_bytes(file.name);
    if (file.name.ends_with(".gz"))
      source = gunzip(std::move(source), file.path, state_->config.on_error);
    return source;
  };
  std::unique_ptr<RecordReader> records;
  switch (layout->format) {
    case RecordFormat::text:
      records = read_plain_text(bytes(), limits);
      break;
    case RecordFormat::json_lines:
      records = read_json_lines(bytes(), layout->field, limits);
      break;
    case RecordFormat::tfrecord:
      records = read_tfrecord(bytes(), file.path, layout->field, limits);
      break;
    case RecordFormat::parquet:
      records =
          read_parquet(state_->store->open_random_access(file.name), file.path, layout->field);
      break;
  }
  DocumentRules rules;
  rules.repair_bytes_literal = state_->description.repair_bytes_literal;
  rules.wiki_markup = state_->description.wiki_markup;
  rules.cleaning = state_->config.cleaning;
  rules.max_document_bytes = limits.max_document_bytes;
  return read_documents(std::move(records), file.path, rules, state_->bad);
}

std::string Corpus::content_hash(const CorpusFile& file) const {
  const std::string hash = state_->hash_of(file);
  const std::lock_guard lock(state_->hashes_mutex);
  state_->hashes[file.name] = hash;
  const auto expected = state_->expected_hashes.find(file.name);
  if (expected != state_->expected_hashes.end() && !hash.starts_with(expected->second)) {
    throw UserError(ExitCode::bad_data,
                    fmt::format("{}: its content is not what it was when the run began: restore "
                                "it, or continue with --allow-data-change",
                                file.path));
  }
  return hash;
}

std::map<std::string, std::string> Corpus::known_hashes() const {
  const std::lock_guard lock(state_->hashes_mutex);
  return state_->hashes;
}

void Corpus::expect_hashes(std::map<std::string, std::string> beginnings) {
  const std::lock_guard lock(state_->hashes_mutex);
  state_->expected_hashes = std::move(beginnings);
}

std::string Corpus::State::hash_of(const CorpusFile& file) const {
  const std::string tag = store->version_tag(file.name);
  if (!store->local()) return sha256_hex(file.name + '\n' + tag);
  const fs::path cache = token_cache_folder(config);
  const fs::path remembered = cache / "file-hashes" / sha256_hex(tag);
  std::error_code error;
  if (fs::is_regular_file(remembered, error)) {
    const std::string hash = read_file(remembered, 1024);
    if (hash.size() == 64) return hash;
  }
  Sha256 hash;
  const auto source = store->open_bytes(file.name);
  std::string buffer(size_t{1} << 20, '\0');
  while (const size_t got = source->read(buffer.data(), buffer.size()))
    hash.update(buffer.data(), got);
  const std::string hex = hash.hex();
  // A file that changes within the clock's tick after it was hashed would keep its times, so very
  // young files are not remembered.
  const auto changed = fs::last_write_time(file.path, error);
  const bool settled =
      !error && fs::file_time_type::clock::now() - changed > std::chrono::seconds(2);
  if (settled && store->version_tag(file.name) == tag) {
    try {
      polysketch::create_directories(remembered.parent_path());
      write_file_durably(remembered, hex);
    } catch (const UserError& failure) {
      log_warning(fmt::format("the hash of {} is not remembered: {}", file.path, failure.what()));
    }
  }
  return hex;
}

std::string Corpus::processing_id() const {
  std::string id = fmt::format(
      "v{};cleaning={};repair={};document={};line={};errors={}", kCleaningVersion,
      state_->description.wiki_markup ? static_cast<int>(state_->config.cleaning) : -1,
      static_cast<int>(state_->description.repair_bytes_literal), state_->config.max_document_bytes,
      state_->config.max_line_bytes, state_->config.on_error == OnError::error ? "error" : "skip");
  for (const auto& layout : state_->description.layouts)
    id += fmt::format(";{}:{}", format_name(layout.format), layout.field);
  return id;
}

const std::string& Corpus::name() const { return state_->description.name; }
int64_t Corpus::published_words(Split split) const {
  return state_->description.words[static_cast<size_t>(split)];
}
BadRecords& Corpus::bad_records() const { return *state_->bad; }

std::optional<Corpus::Book> Corpus::book(const CorpusFile& file) const {
  if (state_->description.metadata.empty()) return std::nullopt;
  std::call_once(state_->metadata_read, [this] {
    if (state_->store->list(state_->description.metadata).empty()) return;
    const std::string text = read_all(*state_->store->open_bytes(state_->description.metadata));
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      // Never quoted: commas were taken out of the titles.
      std::array<std::string, 4> column;
      size_t from = begin;
      for (size_t i = 0; i < column.size() && from <= end; ++i) {
        const size_t to = i + 1 < column.size() ? std::min(text.find(',', from), end) : end;
        column[i] = text.substr(from, to - from);
        from = to + 1;
      }
      if (!column[3].empty() && column[3].back() == '\r') column[3].pop_back();
      state_->books[column[0]] = {column[1], column[2], column[3]};
      begin = end + 1;
    }
  });
  const auto found = state_->books.find(fs::path(file.name).stem().string());
  if (found == state_->books.end()) return std::nullopt;
  return found->second;
}

}  // namespace polysketch
