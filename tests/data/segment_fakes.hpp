// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "data/token_cache.hpp"
#include "support/hash.hpp"
#include "support/philox.hpp"

namespace polysketch::test {

inline constexpr int32_t kFakeEos = 1, kFakeUnknown = 2;

/// One id a byte, from 3 on, so that ids tell the text exactly; '?' is unknown.
inline TokenCache::Encoder byte_encoder(int32_t vocabulary = 300) {
  return {"byte encoder", vocabulary, kFakeEos, kFakeUnknown,
          [](std::string_view text, std::vector<int32_t>& ids) {
            for (const char c : text)
              ids.push_back(c == '?' ? kFakeUnknown : 3 + static_cast<unsigned char>(c));
          }};
}

inline std::vector<int32_t> byte_ids(const std::string& text) {
  std::vector<int32_t> ids;
  byte_encoder().encode(text, ids);
  ids.push_back(kFakeEos);
  return ids;
}

/// Texts of some files, known to the test.
class FakeCorpus {
 public:
  /// `documents[i]` documents in file i, of up to `most` bytes; no two alike.
  FakeCorpus(std::vector<int> documents, int most, uint64_t seed = 1) {
    Philox random(seed, RandomPurpose::test);
    for (size_t file = 0; file < documents.size(); ++file) {
      auto& texts = files_.emplace_back();
      for (int i = 0; i < documents[file]; ++i) {
        std::string text = "f" + std::to_string(file) + "d" + std::to_string(i) + " ";
        for (auto n = random.bounded(static_cast<uint64_t>(most)); n > 0; --n) {
          text.push_back(random.bounded(6) == 0 ? ' '
                                                : static_cast<char>('a' + random.bounded(26)));
        }
        texts.push_back(text);
      }
    }
  }

  /// These documents of these files.
  explicit FakeCorpus(std::vector<std::vector<std::string>> files) : files_(std::move(files)) {}

  const std::vector<std::vector<std::string>>& files() const { return files_; }
  int64_t opened() const { return opened_; }

  std::vector<TokenCache::Input> inputs() {
    std::vector<TokenCache::Input> inputs;
    for (size_t file = 0; file < files_.size(); ++file) {
      std::string all;
      for (const auto& text : files_[file]) all += text + "\n\n";
      inputs.push_back({"file" + std::to_string(file), all.size(),
                        [hash = sha256_hex(all)] { return hash; },
                        [this, file]() -> std::unique_ptr<DocumentReader> {
                          ++opened_;
                          return std::make_unique<Reader>(files_[file]);
                        }});
    }
    return inputs;
  }

  std::shared_ptr<TokenCache> cache(const std::filesystem::path& folder,
                                    int64_t segment_bytes = 512,
                                    TokenCache::Encoder encoder = byte_encoder()) {
    TokenCache::Options options;
    options.folder = folder;
    options.processing_id = "fake";
    options.segment_bytes = segment_bytes;
    return std::make_shared<TokenCache>(options, std::move(encoder), inputs());
  }

 private:
  class Reader : public DocumentReader {
   public:
    explicit Reader(const std::vector<std::string>& texts) : texts_(texts) {}
    bool next(Document& document) override {
      if (at_ == texts_.size()) return false;
      document = {texts_[at_], at_, 0};
      ++at_;
      return true;
    }

   private:
    const std::vector<std::string>& texts_;
    size_t at_ = 0;
  };

  std::vector<std::vector<std::string>> files_;
  std::atomic<int64_t> opened_{0};
};

/// All ids of a file, segment after segment.
inline std::vector<int32_t> all_ids(SegmentSource& source, int64_t file) {
  std::vector<int32_t> ids;
  for (int64_t i = 0;; ++i) {
    const auto segment = source.load({file, i});
    if (!segment) return ids;
    const auto n = segment->counts().tokens;
    ids.resize(ids.size() + static_cast<size_t>(n));
    segment->copy(0, n, ids.data() + ids.size() - static_cast<size_t>(n));
  }
}

inline std::vector<int32_t> expected_ids(const std::vector<std::string>& texts) {
  std::vector<int32_t> ids;
  for (const auto& text : texts) {
    const auto own = byte_ids(text);
    ids.insert(ids.end(), own.begin(), own.end());
  }
  return ids;
}

}  // namespace polysketch::test
