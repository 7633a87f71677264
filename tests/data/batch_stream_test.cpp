// SPDX-License-Identifier: Apache-2.0
#include "data/batch_stream.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <map>
#include <set>

#include "data/segment_fakes.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/hash.hpp"
#include "support/log.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {
using test::FakeCorpus;
using test::TemporaryFolder;
using Rows = std::vector<std::vector<int32_t>>;

DataConfig data_config(int64_t context, int64_t threads = 2) {
  DataConfig config;
  config.context = context;
  config.shuffle = {true, 3, 4};
  config.threads = threads;
  return config;
}

BatchStream::Options step_of(int64_t sequences, int64_t rows, uint64_t seed = 1) {
  BatchStream::Options options;
  options.sequences_per_step = sequences;
  options.rows_per_batch = rows;
  options.seed = seed;
  return options;
}

/// Rows of `batches` batches, keyed by their global number.
void take(BatchStream& stream, int64_t batches, std::map<int64_t, std::vector<int32_t>>& rows,
          uint64_t* digest = nullptr) {
  for (int64_t i = 0; i < batches; ++i) {
    const Batch batch = stream.next();
    ASSERT_GT(batch.rows, 0);
    const auto width = static_cast<size_t>(batch.context + 1);
    ASSERT_EQ(batch.ids.size(), static_cast<size_t>(batch.rows) * width);
    for (int64_t row = 0; row < batch.rows; ++row) {
      const auto begin =
          batch.ids.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * width);
      ASSERT_TRUE(
          rows.emplace(batch.first_sequence + row,
                       std::vector<int32_t>(begin, begin + static_cast<std::ptrdiff_t>(width)))
              .second);
    }
    if (digest) *digest += batch.digest;
  }
}

Rows first_rows(const DataConfig& config, std::shared_ptr<SegmentSource> source, int64_t count,
                uint64_t seed = 1, int64_t start = 0, int version = kNewestOrder) {
  auto options = step_of(1, 1, seed);
  options.order_version = version;
  options.start_sequence = start;
  BatchStream stream(config, std::move(source), options);
  std::map<int64_t, std::vector<int32_t>> rows;
  take(stream, count, rows);
  Rows result;
  for (auto& [sequence, ids] : rows) {
    EXPECT_EQ(sequence, start + static_cast<int64_t>(result.size()));
    result.push_back(std::move(ids));
  }
  return result;
}

int64_t total_tokens(const FakeCorpus& corpus) {
  int64_t tokens = 0;
  for (const auto& texts : corpus.files())
    tokens += static_cast<int64_t>(test::expected_ids(texts).size());
  return tokens;
}

/// What holds for every version of the order.
class BatchStreamOf : public testing::TestWithParam<int> {
 protected:
  static Rows first(const DataConfig& config, std::shared_ptr<SegmentSource> source, int64_t count,
                    uint64_t seed = 1, int64_t start = 0) {
    return first_rows(config, std::move(source), count, seed, start, GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Versions, BatchStreamOf, testing::Values(kOrderVersion1, kNewestOrder));

/// Puts the windows of an epoch together again: each begins with the id the one before ends with,
/// so chains show the run of tokens. Here every window is looked up in the documents instead: its
/// inner parts between EOS must be parts of documents.
TEST_P(BatchStreamOf, EveryWindowOfAnEpochComesOnceAndHoldsTheDocuments) {
  TemporaryFolder folder;
  FakeCorpus corpus({25, 4, 0, 12, 1, 9, 30}, 300);
  const int64_t context = 16, tokens = total_tokens(corpus), windows = (tokens - 1) / context;
  auto config = data_config(context);
  const auto one = first(config, corpus.cache(folder.path()), windows);

  // Tokens that are inputs: all of the epoch but fewer than a window. Counted by document through
  // the unique start of each text.
  std::map<int32_t, int64_t> count, expected;
  for (const auto& row : one) {
    for (size_t i = 0; i + 1 < row.size(); ++i) ++count[row[i]];
  }
  for (const auto& texts : corpus.files()) {
    for (const int32_t id : test::expected_ids(texts)) ++expected[id];
  }
  int64_t missing = 0;
  for (const auto& [id, n] : expected) {
    EXPECT_LE(count[id], n);
    missing += n - count[id];
  }
  EXPECT_EQ(missing, tokens - windows * context);
  EXPECT_LE(missing, context);

  // Without the permutation of windows the epoch is one run of tokens; documents follow each other
  // whole, EOS between them.
  std::set<std::vector<int32_t>> documents;
  for (const auto& texts : corpus.files()) {
    for (const auto& text : texts) documents.insert(test::byte_ids(text));
  }
  config.shuffle.enabled = false;
  const auto plain = first(config, corpus.cache(folder.path()), windows);
  std::vector<int32_t> run;
  for (const auto& row : plain) {
    if (!run.empty()) {
      EXPECT_EQ(run.back(), row.front()) << "the last target is the next window's first input";
    }
    run.insert(run.end(), row.begin() + (run.empty() ? 0 : 1), row.end());
  }
  std::vector<int32_t> expected_run;
  for (const auto& texts : corpus.files()) {
    const auto ids = test::expected_ids(texts);
    expected_run.insert(expected_run.end(), ids.begin(), ids.end());
  }
  expected_run.resize(run.size());
  EXPECT_EQ(run, expected_run);
  const std::multiset<std::vector<int32_t>> shuffled_set(one.begin(), one.end()),
      plain_set(plain.begin(), plain.end());
  EXPECT_NE(shuffled_set, plain_set) << "documents are permuted, so windows hold other tokens";
}

/// The windows of a shuffled epoch, put back into their order, are the run of tokens that the pools
/// make.
TEST_P(BatchStreamOf, ShuffledWindowsJoinToWholeDocuments) {
  TemporaryFolder folder;
  FakeCorpus corpus({25, 4, 12, 9}, 300);
  const int64_t context = 64, windows = (total_tokens(corpus) - 1) / context;
  const auto rows = first(data_config(context), corpus.cache(folder.path()), windows);
  EXPECT_EQ(std::set<std::vector<int32_t>>(rows.begin(), rows.end()).size(), rows.size());
  // Texts begin with their own number, so a document can be looked up wherever its start and end
  // lie in one window.
  std::set<std::vector<int32_t>> documents;
  for (const auto& texts : corpus.files()) {
    for (const auto& text : texts) documents.insert(test::byte_ids(text));
  }
  int64_t whole = 0;
  for (const auto& row : rows) {
    auto begin = std::find(row.begin(), row.end(), test::kFakeEos);
    while (begin != row.end()) {
      const auto end = std::find(begin + 1, row.end(), test::kFakeEos);
      if (end == row.end()) break;
      EXPECT_TRUE(documents.contains(std::vector<int32_t>(begin + 1, end + 1)));
      ++whole;
      begin = end;
    }
  }
  EXPECT_GT(whole, 3);
}

TEST_P(BatchStreamOf, OrderIsTheSameForAnyWorldThreadsAndBatchSize) {
  FakeCorpus corpus({25, 4, 12, 1, 9, 30}, 200);
  const int64_t steps = 60, group = 12;
  std::map<int64_t, std::vector<int32_t>> reference;
  uint64_t reference_digest = 0;
  for (const int64_t world : {1, 2, 3}) {
    for (const int64_t threads : {1, 2, 4}) {
      TemporaryFolder folder;  // fresh: tokenised while it is read
      std::map<int64_t, std::vector<int32_t>> rows;
      uint64_t digest = 0;
      for (int64_t rank = 0; rank < world; ++rank) {
        auto options = step_of(group, threads == 2 ? 1 : 2);
        options.rank = rank;
        options.world = world;
        options.order_version = GetParam();
        BatchStream stream(data_config(24, threads), corpus.cache(folder.path()), options);
        take(stream, steps * group / world / options.rows_per_batch, rows, &digest);
      }
      ASSERT_EQ(static_cast<int64_t>(rows.size()), steps * group);
      if (reference.empty()) {
        reference = rows;
        reference_digest = digest;
      }
      EXPECT_EQ(rows, reference) << "world " << world << ", threads " << threads;
      EXPECT_EQ(digest, reference_digest);
    }
  }
}

TEST(BatchStream, RanksTakeConsecutivePartsOfEachStep) {
  TemporaryFolder folder;
  FakeCorpus corpus({30}, 200);
  auto options = step_of(6, 1);
  options.rank = 2;
  options.world = 3;
  BatchStream stream(data_config(8), corpus.cache(folder.path()), options);
  for (const int64_t first : {4, 5, 10, 11, 16}) EXPECT_EQ(stream.next().first_sequence, first);
}

TEST_P(BatchStreamOf, SeekEqualsStreamingFromTheStart) {
  TemporaryFolder folder;
  FakeCorpus corpus({25, 4, 0, 12, 1, 9, 30}, 120);
  // Windows shorter than documents, and longer than whole pools.
  for (const int64_t context : {7, 90, 2500}) {
    const int64_t windows = (total_tokens(corpus) - 1) / context;
    ASSERT_GE(windows, 2);
    const auto config = data_config(context);
    const int64_t length = windows * 2 + windows / 2 + 2;
    const auto all = first(config, corpus.cache(folder.path()), length);
    for (int64_t start = 0; start < length - 2; start += std::max<int64_t>(1, length / 60)) {
      const int64_t count = std::min<int64_t>(40, length - start);
      EXPECT_EQ(first(config, corpus.cache(folder.path()), count, 1, start),
                Rows(all.begin() + start, all.begin() + start + count))
          << "context " << context << ", start " << start;
    }
  }
}

TEST_P(BatchStreamOf, SeekTokenisesWhatIsMissing) {
  TemporaryFolder folder, fresh;
  FakeCorpus corpus({25, 4, 12}, 120);
  const auto config = data_config(16);
  const int64_t windows = (total_tokens(corpus) - 1) / 16;
  for (const int64_t start : {int64_t{3}, windows / 2, windows, windows * 3 + 5}) {
    TemporaryFolder empty;
    EXPECT_EQ(first(config, corpus.cache(empty.path()), 3, 1, start),
              first(config, corpus.cache(folder.path()), 3, 1, start));
  }
}

TEST_P(BatchStreamOf, SeekReadsNoTokensBeforeItsPlace) {
  TemporaryFolder folder;
  FakeCorpus corpus({120, 120, 120, 120}, 200);
  const auto config = data_config(16);
  const int64_t windows = (total_tokens(corpus) - 1) / 16;
  first(config, corpus.cache(folder.path()), windows);
  struct Counting : SegmentSource {
    std::shared_ptr<SegmentSource> inner;
    std::atomic<int64_t> loaded{0};
    int64_t files() const override { return inner->files(); }
    int32_t eos() const override { return inner->eos(); }
    int32_t unknown() const override { return inner->unknown(); }
    uint64_t file_bytes(int64_t file) const override { return inner->file_bytes(file); }
    int64_t segment_bytes() const override { return inner->segment_bytes(); }
    std::shared_ptr<const Segment> load(const SegmentRef& ref) override {
      ++loaded;
      return inner->load(ref);
    }
    Known look_up(const SegmentRef& ref) override { return inner->look_up(ref); }
    void cancel() override { inner->cancel(); }
    std::string file_name(int64_t file) const override { return inner->file_name(file); }
  };
  auto counting = std::make_shared<Counting>();
  counting->inner = corpus.cache(folder.path());
  auto whole = std::make_shared<Counting>();
  whole->inner = corpus.cache(folder.path());
  first(config, whole, windows);
  first(config, counting, 1, 1, windows - 2);
  // The last pool, the one before for the tail, and what is asked for ahead, of the next epoch too:
  // about 10 of 120 segments, up to 25 where the threads that read are much ahead.
  EXPECT_LT(3 * counting->loaded, whole->loaded);
}

TEST_P(BatchStreamOf, SeedsAndEpochsDifferAndRepeat) {
  TemporaryFolder folder;
  FakeCorpus corpus({25, 4, 12, 9}, 200);
  const auto config = data_config(16);
  const int64_t windows = (total_tokens(corpus) - 1) / 16;
  const auto rows = first(config, corpus.cache(folder.path()), 2 * windows);
  EXPECT_EQ(rows, first(config, corpus.cache(folder.path()), 2 * windows));
  EXPECT_NE(Rows(rows.begin(), rows.begin() + windows), Rows(rows.begin() + windows, rows.end()));
  EXPECT_NE(rows, first(config, corpus.cache(folder.path()), 2 * windows, 2));
}

TEST(BatchStream, SaysEpochAndItsLength) {
  TemporaryFolder folder;
  FakeCorpus corpus({10}, 200);
  const int64_t windows = (total_tokens(corpus) - 1) / 16;
  BatchStream stream(data_config(16), corpus.cache(folder.path()), step_of(1, 1));
  for (int64_t i = 0; i < 3 * windows; ++i) {
    stream.next();
    EXPECT_EQ(stream.epoch(), i / windows);
  }
  EXPECT_EQ(stream.sequences_per_epoch(), windows);
}

TEST(BatchStream, DigestIsTheStatedHash) {
  TemporaryFolder folder;
  FakeCorpus corpus({20}, 200);
  BatchStream stream(data_config(8), corpus.cache(folder.path()), step_of(3, 3));
  stream.next();
  const Batch batch = stream.next();
  uint64_t sum = 0;
  for (int64_t row = 0; row < 3; ++row) {
    std::string bytes;
    for (int shift = 0; shift < 64; shift += 8)
      bytes.push_back(static_cast<char>((batch.first_sequence + row) >> shift & 255));
    for (int64_t i = 0; i < 9; ++i) {
      for (int shift = 0; shift < 32; shift += 8)
        bytes.push_back(
            static_cast<char>(batch.ids[static_cast<size_t>(row * 9 + i)] >> shift & 255));
    }
    const std::string hex = sha256_hex(bytes);
    for (int i = 7; i >= 0; --i)
      sum +=
          static_cast<uint64_t>(std::stoul(hex.substr(static_cast<size_t>(2 * i), 2), nullptr, 16))
          << (8 * i);
  }
  EXPECT_EQ(batch.digest, sum);
}

TEST(BatchStream, NumbersDocumentsWhenAsked) {
  TemporaryFolder folder;
  FakeCorpus corpus({40}, 30);
  auto config = data_config(64);
  config.mask_documents = true;
  BatchStream stream(config, corpus.cache(folder.path()), step_of(2, 2));
  int64_t changes = 0;
  for (int i = 0; i < 4; ++i) {
    const Batch batch = stream.next();
    ASSERT_EQ(batch.documents.size(), batch.ids.size());
    for (size_t at = 0; at < batch.ids.size(); ++at) {
      if (at % 65 == 0) {
        EXPECT_EQ(batch.documents[at], 0);
      } else {
        EXPECT_EQ(batch.documents[at] - batch.documents[at - 1],
                  batch.ids[at - 1] == test::kFakeEos ? 1 : 0);
        changes += batch.documents[at] != batch.documents[at - 1];
      }
    }
  }
  EXPECT_GT(changes, 0);
  BatchStream without(data_config(64), corpus.cache(folder.path()), step_of(2, 2));
  EXPECT_TRUE(without.next().documents.empty());
}

TEST(BatchStream, RefusesAnOrderItDoesNotKnow) {
  TemporaryFolder folder;
  FakeCorpus corpus({10}, 200);
  for (const int version : {0, kNewestOrder + 1}) {
    auto options = step_of(1, 1);
    options.order_version = version;
    try {
      const BatchStream stream(data_config(16), corpus.cache(folder.path()), options);
      FAIL() << "no error";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::no_checkpoint);
      EXPECT_THAT(error.what(), testing::HasSubstr("version " + std::to_string(version)));
    }
  }
}

/// Digest of some windows of a corpus in the order of a version.
uint64_t digest_of(int version, FakeCorpus& corpus, const ShuffleConfig& shuffle, int64_t context,
                   uint64_t seed, int64_t start, int64_t windows) {
  TemporaryFolder folder;
  auto config = data_config(context);
  config.shuffle = shuffle;
  auto options = step_of(1, 1, seed);
  options.start_sequence = start;
  options.order_version = version;
  BatchStream stream(config, corpus.cache(folder.path()), options);
  uint64_t sum = 0;
  for (int64_t i = 0; i < windows; ++i) sum += stream.next().digest;
  return sum;
}

/// A run goes on with the windows of the version that it began with, and so must every version
/// stay. The digests of version 1 were computed by the program before it knew any other.
TEST(BatchStream, EveryVersionGivesTheWindowsItAlwaysGave) {
  FakeCorpus many({25, 4, 0, 12, 1, 9, 30, 3, 60}, 300), one({200}, 300);
  const ShuffleConfig small{true, 3, 4}, wide{true, 16, 64}, plain{false, 16, 64};
  EXPECT_EQ(digest_of(1, many, small, 16, 1, 0, 3000), 0x73216f4b012eba49u);
  EXPECT_EQ(digest_of(1, many, small, 16, 7, 700, 900), 0x73e5a282b91ef4bbu);
  EXPECT_EQ(digest_of(1, many, wide, 100, 1, 0, 700), 0x7b5d97eaa8b4c381u);
  EXPECT_EQ(digest_of(1, many, small, 2500, 3, 2, 40), 0xe45be53973252480u);
  EXPECT_EQ(digest_of(1, many, plain, 16, 1, 0, 3000), 0xe8c134dc5b080039u);
  EXPECT_EQ(digest_of(1, one, small, 24, 1, 0, 2600), 0xa9ec0522831ba706u);
  EXPECT_EQ(digest_of(1, one, wide, 24, 2, 1000, 1600), 0xacc8c51ce78496c1u);
  EXPECT_EQ(digest_of(2, many, small, 16, 1, 0, 3000), 0xeb33f46301f19cceu);
  EXPECT_EQ(digest_of(2, many, small, 16, 7, 700, 900), 0xebdbaad05681f9eu);
  EXPECT_EQ(digest_of(2, many, wide, 100, 1, 0, 700), 0xd2aea1b96089b1a9u);
  EXPECT_EQ(digest_of(2, many, small, 2500, 3, 2, 40), 0x269b9d0a463c7c81u);
  EXPECT_EQ(digest_of(2, many, plain, 16, 1, 0, 3000), 0xe8c134dc5b080039u);
  EXPECT_EQ(digest_of(2, one, small, 24, 1, 0, 2600), 0x217d14f8a602f114u);
  EXPECT_EQ(digest_of(2, one, wide, 24, 2, 1000, 1600), 0xff005f1e7dad3905u);
}

TEST(BatchStream, CorpusSmallerThanAWindowSaysHowManyTokens) {
  TemporaryFolder folder;
  FakeCorpus corpus({2, 0}, 10);
  const int64_t tokens = total_tokens(corpus);
  for (const int64_t start : {0, 5}) {
    auto options = step_of(1, 1);
    options.start_sequence = start;
    BatchStream stream(data_config(tokens), corpus.cache(folder.path()), options);
    try {
      stream.next();
      FAIL() << "no error";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(tokens) + " tokens"));
    }
  }
  // One more token is enough.
  EXPECT_EQ(first_rows(data_config(tokens - 1), corpus.cache(folder.path()), 3).size(), 3u);
}

TEST(BatchStream, ErrorsOfReadersSurfaceInNext) {
  TemporaryFolder folder;
  FakeCorpus corpus({40}, 100);
  auto inputs = corpus.inputs();
  struct Broken : DocumentReader {
    bool next(Document&) override {
      throw UserError(ExitCode::bad_data, "file9: record 3, byte 77: invalid UTF-8");
    }
  };
  inputs.push_back(
      {"file9", 1, [] { return std::string(64, 'a'); }, [] { return std::make_unique<Broken>(); }});
  TokenCache::Options options;
  options.folder = folder.path();
  options.segment_bytes = 256;
  auto cache = std::make_shared<TokenCache>(options, test::byte_encoder(), inputs);
  BatchStream stream(data_config(8), cache, step_of(1, 1));
  EXPECT_THROW(
      {
        for (int i = 0; i < 100'000; ++i) stream.next();
      },
      UserError);
  EXPECT_THROW(stream.next(), UserError) << "and stays";
}

TEST(BatchStream, StopRequestEndsWaiting) {
  TemporaryFolder folder;
  FakeCorpus corpus({40}, 100);
  std::atomic<bool> release{false};
  auto encoder = test::byte_encoder();
  encoder.encode = [&, inner = encoder.encode](std::string_view text, std::vector<int32_t>& ids) {
    while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    inner(text, ids);
  };
  StopSignal::install();
  BatchStream stream(data_config(8), corpus.cache(folder.path(), 512, encoder), step_of(1, 1));
  kill(getpid(), SIGUSR1);
  EXPECT_EQ(stream.next().rows, 0);
  EXPECT_GT(stream.seconds_waited(), 0);
  StopSignal::reset_for_test();
  release = true;
  EXPECT_EQ(stream.next().rows, 1);
}

TEST(BatchStream, CanBeDestroyedAtAnyMoment) {
  FakeCorpus corpus({60, 30, 10}, 300);
  Philox random(11, RandomPurpose::test);
  for (int round = 0; round < 60; ++round) {
    TemporaryFolder folder;
    BatchStream stream(data_config(16, 3), corpus.cache(folder.path()), step_of(4, 2));
    for (auto n = random.bounded(20); n > 0; --n) stream.next();
  }
}

TEST(BatchStream, RealBooksGiveTheSameOrderColdAndCached) {
  const auto root = test::shared_folder("data");
  if (!root)
    GTEST_SKIP() << "needs real data: ../shared/data/pg19 and ../shared/data/sentencepiece";
  TemporaryFolder folder;
  DataConfig config = data_config(512);
  config.corpus = "pg19";
  config.root = (*root / "pg19").string();
  config.cache = folder.path().string();
  config.shuffle = {};
  const Tokenizer tokenizer((*root / "sentencepiece" / "bpe_32k_c4.model").string());
  const Corpus corpus = Corpus::open(config);
  Rows cold, cached;
  for (auto* rows : {&cold, &cached}) {
    BatchStream stream(config, corpus, tokenizer, step_of(8, 8));
    for (int i = 0; i < 200; ++i) {
      Batch batch = stream.next();
      for (const int32_t id : batch.ids) ASSERT_TRUE(id >= 0 && id < tokenizer.vocabulary());
      rows->push_back(std::move(batch.ids));
    }
  }
  EXPECT_EQ(cold, cached);
  // Text comes back readable.
  const std::string text =
      tokenizer.decode(std::vector<int32_t>(cold[0].begin(), cold[0].begin() + 513));
  EXPECT_THAT(text, testing::HasSubstr(" the "));
}

}  // namespace
}  // namespace polysketch
