// SPDX-License-Identifier: Apache-2.0
#include "data/sample_order.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "data/segment_fakes.hpp"
#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

ShuffleConfig shuffle(int64_t files, int64_t segments, bool enabled = true) {
  return {enabled, files, segments};
}

/// Walks an epoch over files with the given numbers of segments.
std::vector<SegmentRef> walk(const ShuffleConfig& config, uint64_t seed, int64_t epoch,
                             const std::vector<int64_t>& segments) {
  SegmentWalk walk(config, seed, epoch, static_cast<int64_t>(segments.size()));
  std::vector<SegmentRef> order;
  while (const auto ref = walk.peek()) {
    if (ref->segment < segments[static_cast<size_t>(ref->file)]) {
      order.push_back(*ref);
      walk.take();
    } else {
      walk.drop();
    }
  }
  return order;
}

std::vector<SegmentRef> sorted(std::vector<SegmentRef> order) {
  std::sort(order.begin(), order.end());
  return order;
}

TEST(SegmentWalk, MeetsEverySegmentOnceInRisingOrderWithinItsFile) {
  Philox random(3, RandomPurpose::test);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> segments(random.bounded(12));
    std::vector<SegmentRef> all;
    for (size_t file = 0; file < segments.size(); ++file) {
      segments[file] = static_cast<int64_t>(random.bounded(6));
      for (int64_t i = 0; i < segments[file]; ++i) all.push_back({static_cast<int64_t>(file), i});
    }
    const auto config = shuffle(1 + static_cast<int64_t>(random.bounded(5)), 4, round % 5 != 0);
    const auto order = walk(config, 1, round, segments);
    EXPECT_EQ(sorted(order), all);
    std::map<int64_t, int64_t> next;
    for (const auto& ref : order) EXPECT_EQ(ref.segment, next[ref.file]++);
  }
}

TEST(SegmentWalk, TakesTheFilesOfAGroupInTurn) {
  const auto order = walk(shuffle(3, 4), 1, 0, {4, 4, 4, 4, 4, 4});
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i].file, order[i / 12 * 12 + i % 3].file);
    EXPECT_EQ(order[i].segment, static_cast<int64_t>(i % 12 / 3));
  }
}

TEST(SegmentWalk, DependsOnSeedAndEpochOnly) {
  const std::vector<int64_t> segments(20, 2);
  const auto one = walk(shuffle(4, 4), 1, 0, segments);
  EXPECT_EQ(one, walk(shuffle(4, 4), 1, 0, segments));
  EXPECT_NE(one, walk(shuffle(4, 4), 1, 1, segments));
  EXPECT_NE(one, walk(shuffle(4, 4), 2, 0, segments));
}

TEST(SegmentWalk, WithoutShufflingFollowsTheFiles) {
  const auto order = walk(shuffle(4, 4, false), 9, 3, {2, 0, 1, 3});
  EXPECT_EQ(order, sorted(order));
}

TEST(PoolSegments, DoubleUpToTheirSize) {
  EXPECT_EQ(pool_segments(shuffle(1, 64), 0), 1);
  EXPECT_EQ(pool_segments(shuffle(1, 64), 5), 32);
  EXPECT_EQ(pool_segments(shuffle(1, 64), 6), 64);
  EXPECT_EQ(pool_segments(shuffle(1, 64), 1'000'000), 64);
  EXPECT_EQ(pool_segments(shuffle(1, 3), 2), 3);
  EXPECT_EQ(pool_segments(shuffle(1, 1), 40), 1);
}

TEST(WindowsWithin, CountsWindowsThatEndInTime) {
  for (int64_t context = 1; context < 7; ++context) {
    for (int64_t tokens = 0; tokens < 40; ++tokens) {
      int64_t windows = 0;
      while (windows * context + context < tokens) ++windows;
      EXPECT_EQ(windows_within(tokens, context), windows)
          << tokens << " tokens, context " << context;
    }
  }
}

TEST(TokenPool, HoldsEveryDocumentWholeInAnotherOrder) {
  test::TemporaryFolder folder;
  test::FakeCorpus corpus({20, 15}, 200);
  auto cache = corpus.cache(folder.path());
  std::vector<std::shared_ptr<const Segment>> segments;
  for (int64_t file = 0; file < 2; ++file) {
    for (int64_t i = 0; auto segment = cache->load({file, i}); ++i) segments.push_back(segment);
  }
  std::multiset<std::vector<int32_t>> expected;
  for (const auto& texts : corpus.files()) {
    for (const auto& text : texts) expected.insert(test::byte_ids(text));
  }
  const auto documents = [](const std::vector<int32_t>& ids) {
    std::vector<std::vector<int32_t>> found(1);
    for (const int32_t id : ids) {
      found.back().push_back(id);
      if (id == test::kFakeEos) found.emplace_back();
    }
    EXPECT_TRUE(found.back().empty()) << "the run ends with EOS";
    found.pop_back();
    return found;
  };
  const auto ids_of = [&](bool enabled, int64_t epoch, int64_t number) {
    const TokenPool pool(shuffle(2, 8, enabled), 1, epoch, number, segments);
    std::vector<int32_t> ids(static_cast<size_t>(pool.tokens()));
    pool.copy(0, pool.tokens(), ids.data());
    // Any part is the same as that part of the whole.
    Philox random(5, RandomPurpose::test);
    for (int round = 0; round < 300; ++round) {
      const auto begin = static_cast<int64_t>(random.bounded(ids.size()));
      const auto count =
          static_cast<int64_t>(random.bounded(ids.size() - static_cast<size_t>(begin) + 1));
      std::vector<int32_t> part(static_cast<size_t>(count));
      pool.copy(begin, count, part.data());
      EXPECT_TRUE(std::equal(part.begin(), part.end(), ids.begin() + begin));
    }
    return ids;
  };
  const auto shuffled = documents(ids_of(true, 0, 0)), plain = documents(ids_of(false, 0, 0));
  EXPECT_EQ(std::multiset<std::vector<int32_t>>(shuffled.begin(), shuffled.end()), expected);
  EXPECT_EQ(std::multiset<std::vector<int32_t>>(plain.begin(), plain.end()), expected);
  EXPECT_NE(shuffled, plain);
  EXPECT_NE(shuffled, documents(ids_of(true, 1, 0)));
  EXPECT_NE(shuffled, documents(ids_of(true, 0, 1)));
  EXPECT_EQ(plain.front(), test::byte_ids(corpus.files()[0][0]));
}

TEST(WindowOrder, IsAPermutation) {
  for (const int64_t count : {0, 1, 2, 17, 1000}) {
    const WindowOrder order(shuffle(1, 1), 1, 0, 0, count);
    std::set<int64_t> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(order(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
    if (count > 0) {
      EXPECT_EQ(*seen.rbegin(), count - 1);
    }
  }
  const WindowOrder plain(shuffle(1, 1, false), 1, 0, 0, 10);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(plain(i), i);
}

}  // namespace
}  // namespace polysketch
