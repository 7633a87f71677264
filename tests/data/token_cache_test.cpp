// SPDX-License-Identifier: Apache-2.0
#include "data/token_cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <latch>
#include <thread>

#include "data/segment_fakes.hpp"
#include "data/segment_loader.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {
namespace fs = std::filesystem;
using test::all_ids;
using test::expected_ids;
using test::FakeCorpus;
using test::TemporaryFolder;

/// Warnings are part of what is provoked here; hundreds of them would hide everything else.
class Quiet {
 public:
  Quiet() { set_log_level(LogLevel::error); }
  ~Quiet() { set_log_level(LogLevel::info); }
};

void expect_whole(FakeCorpus& corpus, SegmentSource& cache) {
  for (size_t file = 0; file < corpus.files().size(); ++file) {
    ASSERT_EQ(all_ids(cache, static_cast<int64_t>(file)), expected_ids(corpus.files()[file]))
        << "file " << file;
  }
}

std::vector<fs::path> files_named(const fs::path& folder, const std::string& part) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename().string().find(part) != std::string::npos)
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

TEST(Segment, KeepsIdsDocumentsAndCounts) {
  for (const int32_t vocabulary : {300, 65'536, 65'537, 200'000}) {
    SegmentBuilder builder(vocabulary);
    const std::vector<int32_t> first{5, 7, vocabulary - 1, 1}, second{2, 1};
    builder.add("one two", first, 2);
    builder.add("?", second, 2);
    builder.add_skipped(3);
    const auto segment = Segment::parse(builder.finish({9, 4}, true), {9, 4}, vocabulary);
    EXPECT_EQ(segment->counts(), (SegmentCounts{6, 2, 8, 3, 1, 3}));
    EXPECT_TRUE(segment->summary().last);
    std::vector<int32_t> ids(5);
    segment->copy(1, 5, ids.data());
    EXPECT_EQ(ids, (std::vector<int32_t>{7, vocabulary - 1, 1, 2, 1}));
    ASSERT_EQ(segment->documents().size(), 2u);
    EXPECT_EQ(segment->documents()[0].end, 4u);
    EXPECT_EQ(segment->documents()[1].bytes, 1u);
    EXPECT_EQ(segment->documents()[0].words, 2u);
  }
}

TEST(Segment, RefusesEveryChangedByteAndEveryLength) {
  SegmentBuilder builder(300);
  builder.add("text", std::vector<int32_t>{5, 7, 299, 1}, 2);
  builder.add("more", std::vector<int32_t>{8, 1}, 2);
  const std::string good = builder.finish({9, 4}, false);
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      EXPECT_THROW(Segment::parse(bad, {9, 4}, 300), SegmentDamaged)
          << "byte " << at << " bit " << bit;
    }
    EXPECT_THROW(Segment::parse(good.substr(0, at), {9, 4}, 300), SegmentDamaged)
        << "cut at " << at;
  }
  EXPECT_THROW(Segment::parse(good + "x", {9, 4}, 300), SegmentDamaged);
  EXPECT_THROW(Segment::parse(good, {9, 5}, 300), SegmentDamaged) << "another segment's number";
  EXPECT_THROW(Segment::parse(good, {8, 4}, 300), SegmentDamaged) << "another file's";
  EXPECT_THROW(Segment::parse(good, {9, 4}, 299), SegmentDamaged) << "id outside the vocabulary";
}

TEST(Segment, RefusesIdsOutsideTheVocabularyWhenBuilt) {
  SegmentBuilder builder(300);
  EXPECT_THROW(builder.add("x", std::vector<int32_t>{300}, 2), UserError);
  EXPECT_THROW(builder.add("x", std::vector<int32_t>{-1}, 2), UserError);
}

TEST(TokenCache, GivesEveryDocumentInOrderWithEosBehindIt) {
  TemporaryFolder folder;
  FakeCorpus corpus({40, 1, 0, 7}, 300);
  auto cache = corpus.cache(folder.path());
  expect_whole(corpus, *cache);
  EXPECT_GT(cache->file_summary(0)->segments, 4) << "the test wants several segments";
  EXPECT_EQ(cache->file_summary(2)->segments, 0);
  SegmentCounts counts = cache->file_summary(3)->counts;
  EXPECT_EQ(counts.documents, 7);
  EXPECT_EQ(counts.tokens, counts.bytes + 7);
}

TEST(TokenCache, SegmentsGrowToTheirSize) {
  EXPECT_EQ(segment_target(4 << 20, 0), 256 << 10);
  EXPECT_EQ(segment_target(4 << 20, 3), 2 << 20);
  EXPECT_EQ(segment_target(4 << 20, 4), 4 << 20);
  EXPECT_EQ(segment_target(4 << 20, 1000), 4 << 20);
  EXPECT_EQ(segment_target(1, 0), 1);
}

TEST(TokenCache, SecondUseReadsNoText) {
  TemporaryFolder folder;
  FakeCorpus corpus({30, 5}, 300);
  expect_whole(corpus, *corpus.cache(folder.path()));
  const auto opened = corpus.opened();
  auto again = corpus.cache(folder.path());
  expect_whole(corpus, *again);
  EXPECT_EQ(corpus.opened(), opened);
  EXPECT_EQ(again->work().segments, 0);
  ASSERT_TRUE(again->file_summary(0));
  EXPECT_TRUE(again->verify(0).complete);
}

TEST(TokenCache, OtherTokenizerCleaningOrSegmentSizeIsAnotherCache) {
  TemporaryFolder folder;
  FakeCorpus corpus({3}, 30);
  auto other = test::byte_encoder();
  other.sha256 = "another";
  EXPECT_NE(corpus.cache(folder.path())->folder(),
            corpus.cache(folder.path(), 512, other)->folder());
  EXPECT_NE(corpus.cache(folder.path())->folder(), corpus.cache(folder.path(), 1024)->folder());
}

TEST(TokenCache, ThreadsShareOneReaderAndMakeEachSegmentOnce) {
  TemporaryFolder folder;
  FakeCorpus corpus({200, 100}, 300);
  auto cache = corpus.cache(folder.path());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { expect_whole(corpus, *cache); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(cache->work().segments,
            cache->file_summary(0)->segments + cache->file_summary(1)->segments);
  EXPECT_EQ(corpus.opened(), 2);
}

TEST(TokenCache, AnySegmentCanBeAskedForFirst) {
  TemporaryFolder folder, reference_folder;
  FakeCorpus corpus({100}, 300);
  auto reference = corpus.cache(reference_folder.path());
  auto cache = corpus.cache(folder.path());
  std::vector<int32_t> expected(10), got(10);
  reference->load({0, 7})->copy(0, 10, expected.data());
  cache->load({0, 7})->copy(0, 10, got.data());
  EXPECT_EQ(got, expected);
  EXPECT_EQ(cache->load({0, 1000}), nullptr);
  expect_whole(corpus, *cache);
}

TEST(TokenCache, DamagedSegmentIsRemovedAndMadeAgain) {
  const Quiet quiet;
  TemporaryFolder folder;
  FakeCorpus corpus({60}, 300);
  expect_whole(corpus, *corpus.cache(folder.path()));
  const auto segments = files_named(folder.path(), "seg-");
  ASSERT_GE(segments.size(), 4u);
  std::string content = test::read_text(segments[2]);
  content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 1);
  std::ofstream(segments[2], std::ios::binary) << content;
  fs::resize_file(segments[3], 40);

  const auto found = corpus.cache(folder.path())->verify(0);
  EXPECT_EQ(found.damaged.size(), 2u);
  EXPECT_FALSE(found.complete);
  auto cache = corpus.cache(folder.path());
  expect_whole(corpus, *cache);
  EXPECT_EQ(cache->work().segments, 2);
  EXPECT_TRUE(corpus.cache(folder.path())->verify(0).complete);
}

TEST(TokenCache, DamagedIndexAndMissingSegmentsAreMadeAgain) {
  const Quiet quiet;
  TemporaryFolder folder;
  FakeCorpus corpus({60}, 300);
  expect_whole(corpus, *corpus.cache(folder.path()));
  const auto index = files_named(folder.path(), "index.json").at(0);
  const std::string good = test::read_text(index);
  for (size_t at = 0; at < good.size(); at += 3) {
    std::ofstream(index, std::ios::binary) << good.substr(0, at) << '7' << good.substr(at + 1);
    expect_whole(corpus, *corpus.cache(folder.path()));
  }
  for (const auto& segment : files_named(folder.path(), "seg-")) {
    fs::remove(segment);
    expect_whole(corpus, *corpus.cache(folder.path()));
  }
  for (const auto& segment : files_named(folder.path(), "seg-")) fs::remove(segment);
  expect_whole(corpus, *corpus.cache(folder.path()));
}

TEST(TokenCache, WhatAReaderThrowsReachesTheCaller) {
  TemporaryFolder folder;
  struct Broken : DocumentReader {
    bool next(Document& document) override {
      if (++at > 5) throw UserError(ExitCode::bad_data, "record 5 is bad");
      document = {std::string(100, 'x'), at - 1, 0};
      return true;
    }
    uint64_t at = 0;
  };
  TokenCache::Options options;
  options.folder = folder.path();
  options.segment_bytes = 160;
  TokenCache cache(options, test::byte_encoder(),
                   {{"broken", 1, [] { return std::string(64, 'a'); },
                     [] { return std::make_unique<Broken>(); }}});
  EXPECT_THROW(all_ids(cache, 0), UserError);
  EXPECT_THROW(all_ids(cache, 0), UserError) << "and again, not an end of the file";
  EXPECT_FALSE(cache.file_summary(0));
}

TEST(TokenCache, CountsRecordsThatGaveNoDocument) {
  TemporaryFolder folder;
  // records 0, 3 and 4 of 7, where 3 is so long that it comes in two parts
  struct Gaps : DocumentReader {
    bool next(Document& document) override {
      const std::vector<uint64_t> records{0, 3, 3, 4};
      if (at == records.size()) return false;
      document = {"text", records[at++], 0};
      return true;
    }
    uint64_t records() const override { return 7; }
    size_t at = 0;
  };
  TokenCache::Options options;
  options.folder = folder.path();
  options.segment_bytes = 1;
  TokenCache cache(
      options, test::byte_encoder(),
      {{"gaps", 1, [] { return std::string(64, 'a'); }, [] { return std::make_unique<Gaps>(); }}});
  all_ids(cache, 0);
  EXPECT_EQ(cache.file_summary(0)->counts.skipped, 4);
  EXPECT_EQ(cache.file_summary(0)->counts.documents, 4);
}

TEST(TokenCache, ClearsAwayWhatKilledWritersLeft) {
  TemporaryFolder folder;
  FakeCorpus corpus({20}, 300);
  expect_whole(corpus, *corpus.cache(folder.path()));
  const auto segment = files_named(folder.path(), "seg-").at(1);
  const fs::path old_one = segment.string() + ".tmp-4711-0",
                 young_one = segment.string() + ".tmp-4711-1";
  test::write_text(old_one, "half a segment");
  test::write_text(young_one, "half a segment");
  fs::last_write_time(old_one, fs::file_time_type::clock::now() - std::chrono::minutes(5));
  fs::remove(segment);
  expect_whole(corpus, *corpus.cache(folder.path()));
  EXPECT_FALSE(fs::exists(old_one));
  EXPECT_TRUE(fs::exists(young_one)) << "may still be written";
}

/// Tokenises everything in a child process; the child sleeps a little in each document so that
/// kills land everywhere.
pid_t start_writer(FakeCorpus& corpus, const fs::path& folder, int microseconds) {
  const pid_t child = fork();
  if (child != 0) return child;
  auto encoder = test::byte_encoder();
  encoder.encode = [inner = encoder.encode, microseconds](std::string_view text,
                                                          std::vector<int32_t>& ids) {
    usleep(static_cast<useconds_t>(microseconds));
    inner(text, ids);
  };
  int code = 0;
  try {
    auto cache = corpus.cache(folder, 512, encoder);
    for (size_t file = 0; file < corpus.files().size(); ++file) {
      if (all_ids(*cache, static_cast<int64_t>(file)) != expected_ids(corpus.files()[file]))
        code = 3;
    }
  } catch (...) {
    code = 4;
  }
  _exit(code);
}

TEST(TokenCache, SurvivesKillsAtAnyMoment) {
  TemporaryFolder folder;
  FakeCorpus corpus({150, 80}, 300);
  Philox random(7, RandomPurpose::test);
  int killed = 0;
  for (int round = 0; round < 30; ++round) {
    const pid_t child = start_writer(corpus, folder.path(), 200);
    ASSERT_GT(child, 0);
    usleep(static_cast<useconds_t>(random.bounded(30'000)));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    killed += WIFSIGNALED(status);
    // Everything visible is whole, at any time.
    for (int64_t file = 0; file < 2; ++file)
      EXPECT_THAT(corpus.cache(folder.path())->verify(file).damaged, testing::IsEmpty());
    // Every third time starts from nothing, so that kills meet all stages.
    if (round % 3 == 2) {
      expect_whole(corpus, *corpus.cache(folder.path()));
      for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove_all(entry.path());
    }
  }
  EXPECT_GE(killed, 20);
  expect_whole(corpus, *corpus.cache(folder.path()));
}

TEST(TokenCache, ProcessesAtOnceShareTheWork) {
  TemporaryFolder folder;
  FakeCorpus corpus({100, 60, 30}, 300);
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) children.push_back(start_writer(corpus, folder.path(), 100));
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  auto cache = corpus.cache(folder.path());
  expect_whole(corpus, *cache);
  EXPECT_EQ(cache->work().segments, 0);
}

TEST(TokenCache, TwoCachesOverOneFolderMakeEachSegmentOnce) {
  TemporaryFolder folder;
  FakeCorpus corpus({300}, 300);
  auto one = corpus.cache(folder.path()), two = corpus.cache(folder.path());
  std::thread other([&] { expect_whole(corpus, *two); });
  expect_whole(corpus, *one);
  other.join();
  EXPECT_EQ(one->work().segments + two->work().segments, one->file_summary(0)->segments);
}

TEST(TokenCache, OvertakesAProcessThatHoldsTheLockAndDoesNothing) {
  const Quiet quiet;
  TemporaryFolder folder;
  FakeCorpus corpus({20}, 300);
  std::latch inside(1), go_on(1);
  auto slow = test::byte_encoder();
  std::atomic<bool> first{true};
  slow.encode = [&, inner = slow.encode](std::string_view text, std::vector<int32_t>& ids) {
    if (first.exchange(false)) {
      inside.count_down();
      go_on.wait();
    }
    inner(text, ids);
  };
  auto stuck = corpus.cache(folder.path(), 512, slow);
  std::thread holder([&] { expect_whole(corpus, *stuck); });
  inside.wait();
  TokenCache::Options options;
  options.folder = folder.path();
  options.processing_id = "fake";
  options.segment_bytes = 512;
  options.patience = 0.05;
  TokenCache impatient(options, test::byte_encoder(), corpus.inputs());
  expect_whole(corpus, impatient);
  go_on.count_down();
  holder.join();
}

TEST(TokenCache, CancelEndsWaiting) {
  TemporaryFolder folder;
  FakeCorpus corpus({20}, 300);
  auto cache = corpus.cache(folder.path());
  cache->cancel();
  EXPECT_THROW(cache->load({0, 0}), Cancelled);
}

TEST(TokenCache, AFolderThatCannotBeMadeIsAUserError) {
  TemporaryFolder folder;
  test::write_text(folder / "file", "x");
  FakeCorpus corpus({2}, 30);
  EXPECT_THROW(corpus.cache(folder / "file")->load({0, 0}), UserError);
}

TEST(SegmentLoader, GivesTheSameForAnyNumberOfThreads) {
  FakeCorpus corpus({50, 3, 0, 20}, 300);
  for (const int threads : {1, 2, 5}) {
    TemporaryFolder folder;
    SegmentLoader loader(corpus.cache(folder.path()), threads, false);
    for (int64_t file = 0; file < 4; ++file) {
      std::vector<int32_t> ids;
      for (int64_t i = 0;; ++i) {
        for (int64_t ahead = 0; ahead < 4; ++ahead) loader.want({file, i + ahead});
        const auto segment = loader.get({file, i});
        if (!segment) break;
        const auto old = ids.size();
        ids.resize(old + static_cast<size_t>(segment->counts().tokens));
        segment->copy(0, segment->counts().tokens, ids.data() + old);
      }
      EXPECT_EQ(ids, expected_ids(corpus.files()[static_cast<size_t>(file)]));
    }
  }
}

TEST(SegmentLoader, LoadsWhatWasNotAskedForAhead) {
  TemporaryFolder folder;
  FakeCorpus corpus({5}, 300);
  SegmentLoader loader(corpus.cache(folder.path()), 1, false);
  EXPECT_NE(loader.get({0, 0}), nullptr);
  EXPECT_EQ(loader.get({0, 100}), nullptr);
  EXPECT_TRUE(loader.ended({0, 100}));
}

}  // namespace
}  // namespace polysketch
