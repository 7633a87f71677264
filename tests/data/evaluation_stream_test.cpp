// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/batch_stream.hpp"
#include "data/segment_fakes.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {
using test::FakeCorpus;
using test::TemporaryFolder;

std::vector<EvaluationWindow> windows_of(EvaluationStream& stream) {
  std::vector<EvaluationWindow> windows;
  EvaluationWindow window;
  while (stream.next(window)) windows.push_back(window);
  return windows;
}

std::vector<int32_t> split_ids(const FakeCorpus& corpus) {
  std::vector<int32_t> ids;
  for (const auto& texts : corpus.files()) {
    const auto own = test::expected_ids(texts);
    ids.insert(ids.end(), own.begin(), own.end());
  }
  return ids;
}

EvaluationStream::Options windows(int64_t context, int64_t stride = 0, int64_t max_tokens = 0,
                                  int64_t rank = 0, int64_t world = 1) {
  return {context, stride, max_tokens, rank, world};
}

TEST(EvaluationStream, ScoresEveryTokenButTheFirstOnce) {
  TemporaryFolder folder;
  FakeCorpus corpus({12, 0, 3, 7}, 150);
  const auto ids = split_ids(corpus);
  const auto total = static_cast<int64_t>(ids.size());
  for (const int64_t context :
       {int64_t{1}, int64_t{5}, int64_t{64}, total - 2, total - 1, total, total + 5}) {
    for (const int64_t stride : {int64_t{0}, int64_t{1}, int64_t{3}, context / 2, context}) {
      if (stride > context) continue;
      if (stride > 0 && stride < 3 && context > 64) continue;  // slow
      EvaluationStream stream({}, corpus.cache(folder.path()), windows(context, stride));
      const int64_t step = stride == 0 ? context : stride;
      int64_t next_target = 1, number = 0;
      for (const auto& window : windows_of(stream)) {
        const int64_t begin = number++ * step;
        ASSERT_LE(static_cast<int64_t>(window.ids.size()), context + 1);
        ASSERT_TRUE(std::equal(window.ids.begin(), window.ids.end(), ids.begin() + begin));
        ASSERT_EQ(begin + window.first_target, next_target);
        ASSERT_LT(window.first_target, static_cast<int64_t>(window.ids.size()));
        next_target = begin + static_cast<int64_t>(window.ids.size());
      }
      EXPECT_EQ(next_target, total);
      EXPECT_EQ(stream.counts().scored, total - 1);
    }
  }
}

TEST(EvaluationStream, CountsTheSplit) {
  TemporaryFolder folder;
  FakeCorpus corpus({12, 0, 3, 7}, 150);
  SplitCounts expected;
  for (const auto& texts : corpus.files()) {
    for (const auto& text : texts) {
      expected.documents += 1;
      expected.tokens += static_cast<int64_t>(test::byte_ids(text).size());
      expected.bytes += static_cast<int64_t>(text.size());
      expected.words += count_words(text);
    }
  }
  for (int64_t rank = 0; rank < 3; ++rank) {
    EvaluationStream stream({}, corpus.cache(folder.path()), windows(64, 0, 0, rank, 3));
    windows_of(stream);
    const SplitCounts& counts = stream.counts();
    EXPECT_EQ(counts.documents, expected.documents);
    EXPECT_EQ(counts.tokens, expected.tokens);
    EXPECT_EQ(counts.bytes, expected.bytes);
    EXPECT_EQ(counts.words, expected.words);
    EXPECT_EQ(counts.unknown, 0);
    EXPECT_EQ(counts.scored, expected.tokens - 1);
  }
}

TEST(EvaluationStream, CountsUnknownPieces) {
  TemporaryFolder folder;
  auto encoder = test::byte_encoder();
  encoder.sha256 = "blanks are unknown";
  encoder.encode = [](std::string_view text, std::vector<int32_t>& ids) {
    for (const char c : text) ids.push_back(c == ' ' ? test::kFakeUnknown : 5);
  };
  FakeCorpus corpus({3}, 50);
  int64_t blanks = 0;
  for (const auto& text : corpus.files()[0]) blanks += std::count(text.begin(), text.end(), ' ');
  EvaluationStream stream({}, corpus.cache(folder.path(), 512, encoder), windows(10));
  windows_of(stream);
  EXPECT_EQ(stream.counts().unknown, blanks);
  EXPECT_GT(blanks, 0);
}

TEST(EvaluationStream, DealsWindowsOutToRanks) {
  TemporaryFolder folder;
  FakeCorpus corpus({12, 3}, 150);
  EvaluationStream alone({}, corpus.cache(folder.path()), windows(32));
  const auto all = windows_of(alone);
  for (const int64_t world : {2, 3}) {
    size_t seen = 0;
    for (int64_t rank = 0; rank < world; ++rank) {
      EvaluationStream stream({}, corpus.cache(folder.path()), windows(32, 0, 0, rank, world));
      size_t number = static_cast<size_t>(rank);
      for (const auto& window : windows_of(stream)) {
        EXPECT_EQ(window.ids, all.at(number).ids);
        number += static_cast<size_t>(world);
        ++seen;
      }
    }
    EXPECT_EQ(seen, all.size());
  }
}

TEST(EvaluationStream, StopsAfterMaxTokens) {
  TemporaryFolder folder;
  FakeCorpus corpus({12, 3}, 150);
  const auto ids = split_ids(corpus);
  for (const int64_t limit : {1, 31, 32, 33, 100}) {
    for (const int64_t stride : {0, 8}) {
      EvaluationStream stream({}, corpus.cache(folder.path()), windows(32, stride, limit));
      int64_t scored = 0;
      for (const auto& window : windows_of(stream))
        scored += static_cast<int64_t>(window.ids.size()) - window.first_target;
      EXPECT_EQ(scored, limit);
      EXPECT_EQ(stream.counts().scored, limit);
      EXPECT_EQ(stream.counts().documents,
                1 + std::count(ids.begin(), ids.begin() + limit, test::kFakeEos));
    }
  }
}

TEST(EvaluationStream, NumbersDocumentsWhenMasked) {
  TemporaryFolder folder;
  FakeCorpus corpus({30}, 20);
  DataConfig config;
  config.mask_documents = true;
  EvaluationStream stream(config, corpus.cache(folder.path()), windows(64));
  for (const auto& window : windows_of(stream)) {
    ASSERT_EQ(window.documents.size(), window.ids.size());
    EXPECT_EQ(window.documents[0], 0);
    EXPECT_EQ(window.documents.back(),
              std::count(window.ids.begin(), window.ids.end() - 1, test::kFakeEos));
  }
}

TEST(EvaluationStream, NothingToScoreIsAUserError) {
  TemporaryFolder folder;
  FakeCorpus corpus({0, 0}, 10);
  EvaluationStream stream({}, corpus.cache(folder.path()), windows(8));
  EvaluationWindow window;
  EXPECT_THROW(stream.next(window), UserError);
}

TEST(EvaluationStream, RefusesAStrideAboveTheContext) {
  TemporaryFolder folder;
  FakeCorpus corpus({1}, 10);
  EXPECT_THROW(EvaluationStream({}, corpus.cache(folder.path()), windows(8, 9)), UserError);
}

TEST(EvaluationStream, CountsOfRealBooksAreTheOnesOfTheirList) {
  const auto root = test::shared_folder("data");
  if (!root)
    GTEST_SKIP() << "needs real data: ../shared/data/pg19 and ../shared/data/sentencepiece";
  TemporaryFolder folder;
  DataConfig config;
  config.corpus = "pg19";
  config.root = (*root / "pg19").string();
  config.cache = folder.path().string();
  const Tokenizer tokenizer((*root / "sentencepiece" / "bpe_32k_c4.model").string());
  EvaluationStream stream(config, Corpus::open(config), Split::test, tokenizer, windows(1024));
  const auto all = windows_of(stream);
  EXPECT_EQ(stream.counts().documents, 4);
  EXPECT_EQ(stream.counts().words, 178'208);  // of ../shared/data/README.md
  EXPECT_EQ(stream.counts().bytes, 186'412 + 249'320 + 405'448 + 158'665);
  EXPECT_EQ(static_cast<int64_t>(all.size()), (stream.counts().tokens - 2) / 1024 + 1);
}

}  // namespace
}  // namespace polysketch
