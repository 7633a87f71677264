// SPDX-License-Identifier: Apache-2.0
#include "data/corpus.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "data/cleaning.hpp"
#include "data/corpus_description.hpp"
#include "data/corpus_reader.hpp"
#include "data/file_pattern.hpp"
#include "data/file_store.hpp"
#include "data/record_reader.hpp"
#include "data/split_files.hpp"
#include "data/token_cache.hpp"
#include "support/durable_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace fs = std::filesystem;

struct Corpus::State {
  State(const DataConfig& data, CorpusDescription found)
      : config(data),
        description(std::move(found)),
        store(FileStore::open(data.root)),
        bad(std::make_shared<BadRecords>(data.on_error, data.max_bad_fraction,
                                         data.max_bad_in_a_row)) {}

  DataConfig config;
  CorpusDescription description;
  std::shared_ptr<FileStore> store;
  std::shared_ptr<BadRecords> bad;
  std::array<std::once_flag, 3> described;  // by Split: what is missing and left out was told
  std::once_flag metadata_read;
  std::map<std::string, Corpus::Book> books;                   // by id
  std::mutex hashes_mutex;                                     // of all that follows
  std::map<std::string, std::string> hashes, expected_hashes;  // by name of the file
  std::map<std::string, uint64_t> counted_bytes;               // by name of the file
  std::set<std::string> unreadable;                            // names of files

  void note_unreadable(const std::string& name) {
    const std::lock_guard lock(hashes_mutex);
    unreadable.insert(name);
  }

  std::string hash_of(const CorpusFile& file) const;
};

namespace {

/// Notes the file when reading it fails.
class WatchedReader final : public DocumentReader {
 public:
  WatchedReader(std::unique_ptr<DocumentReader> reader, std::function<void()> failed)
      : reader_(std::move(reader)), failed_(std::move(failed)) {}
  bool next(Document& document) override {
    try {
      return reader_->next(document);
    } catch (const UserError&) {
      failed_();
      throw;
    }
  }
  uint64_t records() const override { return reader_->records(); }

 private:
  std::unique_ptr<DocumentReader> reader_;
  std::function<void()> failed_;
};

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

/// A list of neighbours is no reason to end: whoever needs what it stumbles over meets the error.
std::vector<std::string> left_out_beside(const FileStore& store,
                                         const CorpusDescription& description, Split split,
                                         const SplitFiles& found) {
  try {
    return left_out_lines(find_left_out(store, description, split, found));
  } catch (const UserError&) {
    return {};
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
    throw UserError(ExitCode::config, fmt::format("data.cleaning: is for Wiki-40B's markup, which "
                                                  "corpus '{}' does not have: set it to none",
                                                  description.name));
  }
  Corpus corpus;
  corpus.state_ = std::make_shared<State>(config, std::move(description));
  return corpus;
}

std::vector<CorpusFile> Corpus::files(Split split) const {
  SplitFiles found = find_split_files(*state_->store, state_->description, split);
  if (found.layout == nullptr) fail_without_files(split);
  std::call_once(state_->described[static_cast<size_t>(split)], [&] {
    note_missing_shards(found.files, name(), split);
    if (const auto lines = left_out_beside(*state_->store, state_->description, split, found);
        !lines.empty()) {
      log_common_warning(fmt::format("{}: not read for the {} split of corpus '{}': {}",
                                     state_->config.root, split_name(split), name(),
                                     fmt::join(lines, "; ")));
    }
  });
  const std::lock_guard lock(state_->hashes_mutex);
  for (CorpusFile& file : found.files) {
    const auto counted = state_->counted_bytes.find(file.name);
    if (counted != state_->counted_bytes.end()) file.bytes = counted->second;
  }
  return std::move(found.files);
}

void Corpus::fail_without_files(Split split) const {
  const CorpusDescription& description = state_->description;
  std::vector<std::string> patterns;
  for (const auto& layout : description.layouts)
    patterns.insert(patterns.end(), layout.of(split).begin(), layout.of(split).end());
  std::vector<std::string> there;
  for (const Split other : splits()) there.emplace_back(split_name(other));
  std::string beside;
  if (const auto lines = left_out_beside(*state_->store, description, split, {}); !lines.empty())
    beside = fmt::format("; not read: {}", fmt::join(lines, "; "));
  if (!there.empty() || patterns.empty()) {
    throw UserError(
        ExitCode::missing_input,
        fmt::format(
            "{}: this corpus ('{}') has no {} split{}{}: {}{}", state_->config.root, name(),
            split_name(split),
            there.empty() ? "" : fmt::format("; it has {}", fmt::join(there, ", ")), beside,
            there.empty() ? "set data.root to the folder of the corpus"
                          : "choose one that is there",
            patterns.empty() ? "" : fmt::format(", or add files: {}", shown_patterns(patterns))));
  }
  std::string advice = "set data.root to the folder that holds them";
  if (const auto roots = likely_roots(*state_->store, description, split); !roots.empty()) {
    std::vector<std::string> paths;
    for (const auto& root : roots) {
      std::string path = state_->config.root;
      path.insert(std::min(path.find('?'), path.size()), '/' + root);  // before a URI's query
      paths.push_back(std::move(path));
    }
    advice =
        fmt::format("set data.root to {}, where there are such files", fmt::join(paths, " or "));
  }
  throw UserError(
      ExitCode::missing_input,
      fmt::format("{}: no {} files of corpus '{}'; looked for {}{}: {}", state_->config.root,
                  split_name(split), name(), shown_patterns(patterns), beside, advice));
}

std::vector<Split> Corpus::splits() const {
  std::vector<Split> there;
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    if (has_split_files(*state_->store, state_->description, split)) there.push_back(split);
  }
  return there;
}

Corpus::SplitSummary Corpus::summary(Split split) const {
  const SplitFiles found = find_split_files(*state_->store, state_->description, split);
  if (found.layout == nullptr) fail_without_files(split);
  SplitSummary summary;
  summary.corpus = name();
  summary.format = format_name(found.layout->format);
  summary.patterns = shown_patterns(found.layout->of(split));
  summary.files = static_cast<int64_t>(found.files.size());
  for (const auto& file : found.files) summary.bytes += file.bytes;
  return summary;
}

std::vector<std::string> Corpus::left_out(Split split) const {
  const FileStore& store = *state_->store;
  return left_out_beside(store, state_->description, split,
                         find_split_files(store, state_->description, split));
}

std::unique_ptr<DocumentReader> Corpus::read(const CorpusFile& file) const {
  const auto failed = [state = state_, name = file.name] { state->note_unreadable(name); };
  try {
    return std::make_unique<WatchedReader>(open_documents(file), failed);
  } catch (const UserError&) {
    failed();
    throw;
  }
}

std::unique_ptr<DocumentReader> Corpus::open_documents(const CorpusFile& file) const {
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
        fmt::format("{}: no pattern of corpus '{}' matches this name: list the files again",
                    file.name, name()));
  }
  RecordLimits limits;
  limits.max_line_bytes = static_cast<uint64_t>(state_->config.max_line_bytes);
  limits.max_document_bytes = static_cast<uint64_t>(state_->config.max_document_bytes);
  const auto bytes = [&] {
    auto source = state_->store->open_bytes(file.name);
    if (has_extension(file.name, ".gz"))
      source = gunzip(std::move(source), file.path, state_->config.on_error);
    return source;
  };
  std::unique_ptr<RecordReader> records;
  switch (layout->format) {
    case RecordFormat::text:
      records = read_plain_text(bytes(), limits);
      break;
    case RecordFormat::json_lines:
      records = read_json_lines(bytes(), file.path, layout->field, limits);
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

std::set<std::string> Corpus::unreadable() const {
  const std::lock_guard lock(state_->hashes_mutex);
  return state_->unreadable;
}

void Corpus::count_as(std::map<std::string, uint64_t> bytes) {
  const std::lock_guard lock(state_->hashes_mutex);
  state_->counted_bytes = std::move(bytes);
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
  const auto& layouts = state_->description.layouts;
  const bool skips = state_->config.on_error == OnError::skip;
  // The first reader of JSON lines skipped records that today's reads: behind a byte order mark,
  // with NaN or ill-formed text in other members.
  const bool skipped_more =
      skips && std::any_of(layouts.begin(), layouts.end(),
                           [](const auto& one) { return one.format == RecordFormat::json_lines; });
  std::string id =
      fmt::format("v{};cleaning={};repair={};document={};line={};errors={}", kCleaningVersion,
                  state_->description.wiki_markup ? static_cast<int>(state_->config.cleaning) : -1,
                  static_cast<int>(state_->description.repair_bytes_literal),
                  state_->config.max_document_bytes, state_->config.max_line_bytes,
                  skipped_more ? "skip-2"
                  : skips      ? "skip"
                               : "error");
  for (const auto& layout : layouts)
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
    const auto lists = state_->store->list(state_->description.metadata);
    if (lists.empty()) return;
    const std::string content = read_all(*state_->store->open_bytes(lists.front().name));
    if (const std::string other = foreign_encoding(content); !other.empty())
      throw UserError(ExitCode::bad_data, fmt::format("{}: {}", lists.front().path, other));
    const std::string_view text = without_byte_order_mark(content);
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
