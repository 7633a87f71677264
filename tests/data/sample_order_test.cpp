// SPDX-License-Identifier: Apache-2.0
#include "data/sample_order.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "data/segment_fakes.hpp"
#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

/// Segments of a full size of 16 bytes, so that they are of 1, 2, 4, 8, 16, 16, … bytes.
OrderRules rules(int version, int64_t files, int64_t segments, bool enabled = true) {
  return {{enabled, files, segments}, 1, version, 16};
}

/// Walks an epoch over files with the given numbers of segments. `sizes`: bytes of the files, else
/// those of their segments.
std::vector<SegmentRef> walk(const OrderRules& rules, int64_t epoch,
                             const std::vector<int64_t>& segments, bool tells_last,
                             std::vector<uint64_t> sizes = {}) {
  for (size_t i = sizes.size(); i < segments.size(); ++i) {
    sizes.push_back(0);
    for (int64_t k = 0; k < segments[i]; ++k)
      sizes[i] += static_cast<uint64_t>(segment_target(16, k));
  }
  SegmentWalk walk(rules, epoch, sizes);
  std::vector<SegmentRef> order;
  while (const auto ref = walk.peek()) {
    const int64_t count = segments[static_cast<size_t>(ref->file)];
    EXPECT_EQ(walk.opens_files() && ref->segment > 0, false);
    if (ref->segment < count) {
      order.push_back(*ref);
      walk.take(tells_last && ref->segment + 1 == count);
    } else {
      EXPECT_TRUE(!tells_last || count == 0) << "a candidate that was known not to exist";
      walk.drop();
    }
  }
  return order;
}

std::vector<SegmentRef> sorted(std::vector<SegmentRef> order) {
  std::sort(order.begin(), order.end());
  return order;
}

class SegmentWalkOf : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Versions, SegmentWalkOf, testing::Values(1, 2));

TEST_P(SegmentWalkOf, MeetsEverySegmentOnceInRisingOrderWithinItsFile) {
  Philox random(3, RandomPurpose::test);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> segments(random.bounded(40));
    std::vector<uint64_t> sizes;
    std::vector<SegmentRef> all;
    for (size_t file = 0; file < segments.size(); ++file) {
      segments[file] = static_cast<int64_t>(random.bounded(9));
      sizes.push_back(random.bounded(1000));
      for (int64_t i = 0; i < segments[file]; ++i) all.push_back({static_cast<int64_t>(file), i});
    }
    const auto config =
        rules(GetParam(), 1 + static_cast<int64_t>(random.bounded(9)), 4, round % 5 != 0);
    const auto order = walk(config, round, segments, false, sizes);
    EXPECT_EQ(sorted(order), all);
    std::map<int64_t, int64_t> next;
    for (const auto& ref : order) EXPECT_EQ(ref.segment, next[ref.file]++);
    EXPECT_EQ(walk(config, round, segments, true, sizes), order)
        << "no matter how the end of a file is told";
  }
}

TEST_P(SegmentWalkOf, DependsOnSeedAndEpochOnly) {
  const std::vector<int64_t> segments(20, 2);
  auto config = rules(GetParam(), 4, 4);
  const auto one = walk(config, 0, segments, true);
  EXPECT_EQ(one, walk(config, 0, segments, true));
  EXPECT_NE(one, walk(config, 1, segments, true));
  config.seed = 2;
  EXPECT_NE(one, walk(config, 0, segments, true));
}

TEST_P(SegmentWalkOf, WithoutShufflingFollowsTheFiles) {
  const auto order = walk(rules(GetParam(), 4, 4, false), 3, {2, 0, 1, 3}, true);
  EXPECT_EQ(order, sorted(order));
}

TEST(SegmentWalk, Version1TakesTheFilesOfAGroupInTurn) {
  const auto order = walk(rules(1, 3, 4), 0, {4, 4, 4, 4, 4, 4}, true);
  for (size_t i = 0; i < order.size(); ++i) {
    EXPECT_EQ(order[i].file, order[i / 12 * 12 + i % 3].file);
    EXPECT_EQ(order[i].segment, static_cast<int64_t>(i % 12 / 3));
  }
}

/// No group has fewer files than asked for, if there are so many: none is left over for a group of
/// its own.
TEST(SegmentWalk, Version2MakesGroupsOfEqualSize) {
  for (const size_t files : {1, 3, 15, 16, 17, 31, 32, 33, 55, 1000}) {
    const auto order = walk(rules(2, 16, 4), 0, std::vector<int64_t>(files, 2), true);
    // The second segments follow when all files of a group have been begun.
    std::vector<size_t> groups;
    for (size_t i = 0; i < order.size(); ++i) {
      if (order[i].segment == 0 && (i == 0 || order[i - 1].segment == 1)) groups.push_back(0);
      groups.back() += order[i].segment == 0;
    }
    EXPECT_EQ(groups.size(), std::max<size_t>(files / 16, 1));
    const auto [least, most] = std::minmax_element(groups.begin(), groups.end());
    EXPECT_GE(*least, std::min<size_t>(files, 16));
    EXPECT_LE(*most, *least + 1);
  }
}

/// Every file of a group is begun before any goes on; then files advance in proportion to their
/// size.
TEST(SegmentWalk, Version2FilesOfAGroupEndTogether) {
  const std::vector<int64_t> segments = {1, 400, 6, 40, 12, 1, 100, 7};
  const auto order = walk(rules(2, 8, 4), 0, segments, true);
  std::set<int64_t> begun;
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_EQ(order[i].segment, 0);
    begun.insert(order[i].file);
  }
  EXPECT_EQ(begun.size(), segments.size());
  const auto text = [](int64_t count) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < count; ++i) bytes += segment_target(16, i);
    return static_cast<double>(bytes);
  };
  std::map<int64_t, int64_t> taken;
  for (size_t i = 0; i < order.size(); ++i) {
    ++taken[order[i].file];
    if (i < segments.size()) continue;
    double least = 1, most = 0;
    for (size_t file = 0; file < segments.size(); ++file) {
      const double all = text(segments[file]),
                   count = static_cast<double>(taken[static_cast<int64_t>(file)]);
      // What a segment more or less makes of the file's share does not matter.
      most = std::max(most, text(static_cast<int64_t>(count) - 1) / all);
      least = std::min(least, text(static_cast<int64_t>(count)) / all);
    }
    EXPECT_LE(most, least + 1e-9) << "after " << i + 1 << " segments";
  }
}

/// What a pool holds.
struct Pool {
  int64_t segments = 0, documents = 0, bytes = 0;
  std::map<int64_t, int64_t> bytes_of;  // each file

  /// What of it would have to change its file to give each file that it holds the same share.
  double unevenness() const {
    double moved = 0;
    const double mean = static_cast<double>(bytes) / static_cast<double>(bytes_of.size());
    for (const auto& [file, own] : bytes_of) moved += std::abs(static_cast<double>(own) - mean);
    return moved / 2 / static_cast<double>(bytes);
  }
};

/// The pools of an epoch over files with segments of the given bytes, of documents of `document`
/// bytes.
std::vector<Pool> pools(const OrderRules& rules, int64_t epoch,
                        const std::vector<std::vector<int64_t>>& files, int64_t document) {
  std::vector<uint64_t> sizes;
  for (const auto& file : files)
    sizes.push_back(static_cast<uint64_t>(std::accumulate(file.begin(), file.end(), int64_t{0})));
  SegmentWalk walk(rules, epoch, sizes);
  std::vector<Pool> result;
  while (walk.peek()) {
    Pool pool;
    PoolContent content;
    while (!pool_is_complete(rules, epoch, static_cast<int64_t>(result.size()), content, walk)) {
      const auto ref = walk.peek();
      if (!ref) break;
      const auto& segments = files[static_cast<size_t>(ref->file)];
      const auto number = static_cast<size_t>(ref->segment);
      SegmentCounts counts;
      counts.bytes = segments[number];
      counts.documents = std::max<int64_t>(1, counts.bytes / document);
      content.add(counts);
      pool.bytes_of[ref->file] += counts.bytes;
      walk.take(number + 1 == segments.size());
    }
    pool.segments = content.segments;
    pool.documents = content.counts.documents;
    pool.bytes = content.counts.bytes;
    result.push_back(pool);
  }
  return result;
}

/// Segments of a file of many small documents.
std::vector<int64_t> large_file(int64_t bytes) {
  std::vector<int64_t> segments;
  for (int64_t i = 0; bytes > 0; ++i, bytes -= segments.back())
    segments.push_back(std::min(bytes, segment_target(4 << 20, i)));
  return segments;
}

OrderRules full_rules(int64_t files = 16, int64_t segments = 64) {
  return {{true, files, segments}, 1, 2, 4 << 20};
}

constexpr int64_t kKiB = 1 << 10, kMiB = 1 << 20;

/// of the `pool`-th pool of the first epoch
int64_t wanted_bytes(size_t pool) { return (int64_t{2} << std::min<size_t>(pool, 6)) * kMiB; }

TEST(PoolIsComplete, Version1CountsSegments) {
  const auto found = pools({{true, 16, 12}, 1, 1, 4 << 20}, 0,
                           std::vector<std::vector<int64_t>>(50, {300 * kKiB}), kMiB);
  std::vector<int64_t> segments;
  for (const auto& pool : found) segments.push_back(pool.segments);
  EXPECT_EQ(segments, (std::vector<int64_t>{1, 2, 4, 8, 12, 12, 11}));
}

TEST(PoolIsComplete, OfBooksHasSixteenAtLeast) {
  const auto found =
      pools(full_rules(), 0, std::vector<std::vector<int64_t>>(2000, {400 * kKiB}), 16 * kMiB);
  for (size_t i = 0; i + 1 < found.size(); ++i) {
    EXPECT_GE(found[i].bytes_of.size(), 16u);
    EXPECT_GE(found[i].bytes, wanted_bytes(i));
    EXPECT_LT(found[i].bytes, wanted_bytes(i) + 16 * 400 * kKiB);
  }
  EXPECT_EQ(found[0].segments, 16);
  // Books as long as a document may be.
  for (const auto& pool :
       pools(full_rules(), 0, std::vector<std::vector<int64_t>>(40, {16 * kMiB}), 16 * kMiB))
    EXPECT_LE(pool.segments, 16);
}

/// Files of the same size stand in every pool alike, whatever the length of their segments.
TEST(PoolIsComplete, OfLargeFilesHasAllOfAGroupInEqualParts) {
  for (size_t files = 2; files < 64; ++files) {
    const auto found = pools(
        full_rules(), 0, std::vector<std::vector<int64_t>>(files, large_file(100 * kMiB)), 3000);
    const size_t group = files / std::max<size_t>(files / 16, 1);
    EXPECT_EQ(found[0].bytes_of.size(), std::min<size_t>(group, 24));
    EXPECT_LE(found[0].bytes, 6 * kMiB);
    for (size_t i = 0; i + 1 < found.size(); ++i) {
      SCOPED_TRACE(fmt::format("{} files, pool {}", files, i));
      const int64_t wanted = wanted_bytes(i);
      EXPECT_GE(found[i].bytes, wanted);
      EXPECT_LE(found[i].bytes, std::min(2 * wanted + 2 * kMiB, 192 * kMiB) + 4 * kMiB);
      if (files >= 32) break;  // later pools may hold files of two groups
      EXPECT_GE(found[i].bytes_of.size(), std::min<size_t>(group, 14));
      EXPECT_LE(found[i].unevenness(), 0.18);
    }
  }
}

/// Sixteen files, not only sixteen documents.
TEST(PoolIsComplete, OfLongDocumentsInManyFilesBeginsWithSixteenFiles) {
  const std::vector<int64_t> file{500 * kKiB, 500 * kKiB, 1000 * kKiB, 2000 * kKiB};
  const auto found =
      pools(full_rules(), 0, std::vector<std::vector<int64_t>>(40, file), 250 * kKiB);
  EXPECT_EQ(found[0].bytes_of.size(), 16u);
}

/// and files of different sizes according to these: the first segments apart, which come first.
TEST(PoolIsComplete, OfUnequalFilesHasTheirShares) {
  const auto found = pools(
      full_rules(4), 0,
      {large_file(400 * kMiB), large_file(100 * kMiB), large_file(50 * kMiB), {300 * kKiB}}, 3000);
  EXPECT_EQ(found[0].bytes_of.size(), 4u);
  for (size_t i = 2; i + 1 < found.size(); ++i) {
    const auto share = [&](int64_t file) {
      const auto own = found[i].bytes_of.find(file);
      return own == found[i].bytes_of.end()
                 ? 0.0
                 : static_cast<double>(own->second) / static_cast<double>(found[i].bytes);
    };
    EXPECT_NEAR(share(0), 400 / 550.3, 0.2) << i;
    EXPECT_NEAR(share(1), 100 / 550.3, 0.15) << i;
    EXPECT_NEAR(share(2), 50 / 550.3, 0.1) << i;
  }
}

TEST(PoolIsComplete, OfOneLargeFileNeedsNoSixteenSegments) {
  const auto found = pools(full_rules(), 0, {large_file(200 * kMiB)}, 3000);
  EXPECT_EQ(found[0].segments, 4);
  EXPECT_EQ(found[0].bytes, (256 + 512 + 1024 + 2048) * kKiB);
  // but sixteen documents
  EXPECT_EQ(pools(full_rules(), 0, {std::vector<int64_t>(30, 2 * kMiB)}, 2 * kMiB)[0].documents,
            16);
}

TEST(PoolIsComplete, OfTinyFilesHasManyButNotTooMany) {
  const std::vector<std::vector<int64_t>> files(3000, {kKiB});
  const auto segments_of = [&](const OrderRules& order, int64_t epoch) {
    std::vector<int64_t> segments;
    for (const auto& pool : pools(order, epoch, files, kKiB)) segments.push_back(pool.segments);
    return segments;
  };
  EXPECT_THAT(segments_of(full_rules(), 0),
              testing::ElementsAre(128, 256, 512, 512, 512, 512, 512, 56));
  EXPECT_THAT(segments_of(full_rules(), 1), testing::ElementsAre(512, 512, 512, 512, 512, 440));
  EXPECT_THAT(segments_of(full_rules(16, 1000), 0),
              testing::ElementsAre(128, 256, 512, 1000, 1000, 104));
}

/// A later epoch has its tokens in the cache.
TEST(PoolIsComplete, LaterEpochsBeginWithFullPools) {
  const std::vector<std::vector<int64_t>> files(1000, {400 * kKiB});
  const auto found = pools(full_rules(16, 8), 1, files, 16 * kMiB);
  for (size_t i = 0; i + 1 < found.size(); ++i) EXPECT_GE(found[i].bytes, 16 * kMiB);
  EXPECT_LT(pools(full_rules(16, 8), 0, files, 16 * kMiB)[0].bytes, 8 * kMiB);
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
    const TokenPool pool(rules(2, 2, 8, enabled), epoch, number, segments);
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
    const WindowOrder order(rules(2, 1, 1), 0, 0, count);
    std::set<int64_t> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(order(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), count);
    if (count > 0) {
      EXPECT_EQ(*seen.rbegin(), count - 1);
    }
  }
  const WindowOrder plain(rules(2, 1, 1, false), 0, 0, 10);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(plain(i), i);
}

}  // namespace
}  // namespace polysketch
