// SPDX-License-Identifier: Apache-2.0
#include "data/token_cache.hpp"

#include <fmt/format.h>

#include <cstdlib>

#include "data/token_cache_file.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"

namespace polysketch {
namespace {

constexpr int kFormat = 1;  // raise when segment boundaries or files change

}  // namespace

std::filesystem::path token_cache_folder(const DataConfig& config) {
  if (!config.cache.empty()) return config.cache;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return std::filesystem::path(cache) / "polysketch" / "tokens";
  const char* home = std::getenv("HOME");
  if (home && *home) return std::filesystem::path(home) / ".cache" / "polysketch" / "tokens";
  throw UserError(ExitCode::config,
                  "data.cache: neither it nor XDG_CACHE_HOME nor HOME is set: set data.cache to a "
                  "folder for token ids");
}

int64_t segment_target(int64_t segment_bytes, int64_t number) {
  int64_t target = std::max<int64_t>(1, segment_bytes / 16);
  for (int64_t i = 0; i < number && target < segment_bytes; ++i) target *= 2;
  return std::min(target, segment_bytes);
}

TokenCache::TokenCache(Options options, Encoder encoder, std::vector<Input> inputs)
    : shared_(std::make_shared<Shared>()) {
  const std::string key =
      sha256_hex(fmt::format("{}\n{}\n{}\n{}\n{}", encoder.sha256, encoder.eos,
                             options.processing_id, options.segment_bytes, kFormat));
  shared_->folder = options.folder / key.substr(0, 16);
  shared_->options = std::move(options);
  shared_->encoder = std::move(encoder);
  files_.reserve(inputs.size());
  for (auto& input : inputs) files_.push_back(std::make_unique<File>(shared_, std::move(input)));
}

TokenCache::~TokenCache() = default;

std::shared_ptr<TokenCache> TokenCache::open(const DataConfig& config, const Corpus& corpus,
                                             Split split, const Tokenizer& tokenizer) {
  Options options;
  options.folder = token_cache_folder(config);
  options.processing_id = corpus.processing_id();
  const Encoder encoder{tokenizer.encoding_id(), tokenizer.vocabulary(), tokenizer.eos(),
                        tokenizer.unknown(),
                        [tokenizer](std::string_view text, std::vector<int32_t>& ids) {
                          tokenizer.encode(text, ids);
                        }};
  std::vector<Input> inputs;
  for (auto& file : corpus.files(split)) {
    inputs.push_back({file.name, file.bytes, [corpus, file] { return corpus.content_hash(file); },
                      [corpus, file] { return corpus.read(file); }});
  }
  return std::make_shared<TokenCache>(std::move(options), encoder, std::move(inputs));
}

int64_t TokenCache::files() const { return static_cast<int64_t>(files_.size()); }

int32_t TokenCache::eos() const { return shared_->encoder.eos; }

int32_t TokenCache::unknown() const { return shared_->encoder.unknown; }

std::shared_ptr<const Segment> TokenCache::load(const SegmentRef& ref) {
  return files_.at(static_cast<size_t>(ref.file))->load(ref.segment);
}

SegmentSource::Known TokenCache::look_up(const SegmentRef& ref) {
  return files_.at(static_cast<size_t>(ref.file))->look_up(ref.segment);
}

void TokenCache::cancel() { shared_->cancelled = true; }

std::string TokenCache::file_name(int64_t file) const {
  return files_.at(static_cast<size_t>(file))->input().name;
}

uint64_t TokenCache::file_bytes(int64_t file) const {
  return files_.at(static_cast<size_t>(file))->input().bytes;
}

int64_t TokenCache::segment_bytes() const { return shared_->options.segment_bytes; }

std::optional<TokenCache::FileSummary> TokenCache::file_summary(int64_t file) {
  return files_.at(static_cast<size_t>(file))->summary();
}

TokenCache::Verification TokenCache::verify(int64_t file) {
  return files_.at(static_cast<size_t>(file))->verify();
}

TokenCache::Work TokenCache::work() const {
  return {shared_->segments_made, shared_->tokens_made, shared_->bytes_made};
}

const std::filesystem::path& TokenCache::folder() const { return shared_->folder; }

}  // namespace polysketch
