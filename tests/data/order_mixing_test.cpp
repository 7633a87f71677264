// SPDX-License-Identifier: Apache-2.0
#include "data/order_mixing.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include "data/corpus.hpp"
#include "data/sample_order.hpp"
#include "data/segment_fakes.hpp"
#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {
using test::FakeCorpus;
using test::TemporaryFolder;

TEST(JensenShannon, OfKnownDistributions) {
  const std::vector<int64_t> a{1, 0}, b{0, 5}, c{1, 1}, d{30, 10, 20}, e{3, 1, 2};
  EXPECT_DOUBLE_EQ(jensen_shannon(a, b), std::numbers::ln2);
  EXPECT_DOUBLE_EQ(jensen_shannon(d, e), 0);
  // (1, 0) and (1/2, 1/2): their mean is (3/4, 1/4).
  const double expected = (std::log(4.0 / 3) + 0.5 * std::log(2.0 / 3) + 0.5 * std::log(2)) / 2;
  EXPECT_DOUBLE_EQ(jensen_shannon(a, c), expected);
  EXPECT_DOUBLE_EQ(jensen_shannon(c, std::vector<int64_t>{1}), expected) << "missing ids are zeros";
}

/// One id a word, by its hash: quick, and enough to tell books apart.
TokenCache::Encoder word_encoder() {
  auto encoder = test::byte_encoder(4096);
  encoder.sha256 = "word encoder";
  encoder.encode = [](std::string_view text, std::vector<int32_t>& ids) {
    uint32_t hash = 0;
    for (size_t i = 0; i <= text.size(); ++i) {
      const char c = i < text.size() ? text[i] : ' ';
      if (c != ' ' && c != '\n' && c != '\r') {
        hash = (hash ^ static_cast<unsigned char>(c)) * 16'777'619u;
      } else if (hash != 0) {
        ids.push_back(3 + static_cast<int32_t>(hash >> 4) % 4093);
        hash = 0;
      }
    }
  };
  return encoder;
}

/// Text of which two words in three are common to all, the others among the ten of one of six
/// themes.
std::string text_of(int theme, int64_t words, Philox& random) {
  std::string text;
  for (int64_t i = 0; i < words; ++i) {
    text += random.bounded(3) == 0 ? fmt::format("t{}w{} ", theme, random.bounded(10))
                                   : fmt::format("w{} ", random.bounded(20));
  }
  return text;
}

/// A corpus of files that each have a theme.
FakeCorpus files_with_themes(const std::vector<int>& documents, int64_t words) {
  Philox random(7, RandomPurpose::test);
  std::vector<std::vector<std::string>> files;
  for (size_t file = 0; file < documents.size(); ++file) {
    auto& texts = files.emplace_back();
    for (int i = 0; i < documents[file]; ++i)
      texts.push_back(text_of(static_cast<int>(file % 6), words, random));
  }
  return FakeCorpus(std::move(files));
}

struct Blocks {
  double first = 0, worst = 0;  // divergence of the first block, and the largest
  double floor = 0;             // mean divergence of as many random windows
};

/// Divergence of all consecutive blocks of an epoch, the last short one apart.
Blocks measure_blocks(const std::function<std::shared_ptr<SegmentSource>()>& open,
                      const DataConfig& config, uint64_t seed, int version, int64_t windows) {
  std::vector<int64_t> whole;
  const auto source = open();
  for (int64_t file = 0; file < source->files(); ++file)
    count_ids(test::all_ids(*source, file), whole);
  const int64_t tokens = std::accumulate(whole.begin(), whole.end(), int64_t{0});
  std::vector<WindowRange> ranges;
  for (int64_t first = 0; first + windows <= windows_within(tokens, config.context);
       first += windows)
    ranges.push_back({first, windows});
  const auto found = measure_mixing(source, config, seed, version, whole, ranges);
  Blocks blocks{found.front().ordered};
  for (const OrderMixing& block : found) {
    EXPECT_EQ(block.windows.count, windows);
    blocks.worst = std::max(blocks.worst, block.ordered);
    blocks.floor += block.random / static_cast<double>(found.size());
  }
  return blocks;
}

/// A corpus in a token cache of its own.
struct CachedCorpus {
  CachedCorpus(const std::vector<int>& documents, int64_t words, int64_t segment)
      : corpus(files_with_themes(documents, words)), segment_bytes(segment) {}

  Blocks measure(uint64_t seed, int version, int64_t windows) {
    DataConfig config;
    config.context = 64;
    config.threads = 2;
    return measure_blocks(
        [&] { return corpus.cache(folder.path(), segment_bytes, word_encoder()); }, config, seed,
        version, windows);
  }

  TemporaryFolder folder;
  FakeCorpus corpus;
  int64_t segment_bytes;
};

/// Version 1 began inside one book, and changed to others all at once.
TEST(OrderMixing, OfBooksIsGoodFromTheFirstWindowToTheLast) {
  CachedCorpus books(std::vector<int>(60, 1), 6000, 32 << 10);
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    const Blocks before = books.measure(seed, 1, 200), now = books.measure(seed, 2, 200);
    EXPECT_GT(before.first, 40 * before.floor);
    EXPECT_LT(now.first, 20 * now.floor) << "16 books of 60 stand for all, but for their themes";
    EXPECT_LT(3 * now.worst, before.worst);
  }
}

/// 16 + 16 + 1: the last pool is one book, with what the one before kept back.
TEST(OrderMixing, OfBooksDoesNotEndInsideOne) {
  CachedCorpus books(std::vector<int>(33, 1), 6000, 32 << 10);
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    const Blocks now = books.measure(seed, 2, 80);
    EXPECT_LT(now.worst, 8 * now.floor);
  }
}

/// In version 1 what was left of a group was its largest file alone.
TEST(OrderMixing, OfUnequalFilesStaysTheSameUntilTheyEnd) {
  CachedCorpus files({2400, 900, 900, 300, 60, 15}, 100, 32 << 10);
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    const Blocks before = files.measure(seed, 1, 200), now = files.measure(seed, 2, 200);
    EXPECT_GT(before.worst, 30 * before.floor);
    EXPECT_LT(now.worst, 6 * now.floor);
  }
}

TEST(OrderMixing, OfEqualFilesIsAsGoodAsRandom) {
  for (const int files : {2, 8, 17}) {
    CachedCorpus corpus(std::vector<int>(static_cast<size_t>(files), 4800 / files), 100, 32 << 10);
    for (const uint64_t seed : {1, 2, 3}) {
      const Blocks now = corpus.measure(seed, 2, 200);
      EXPECT_LT(now.first, 1.5 * now.floor) << files << " files";
      EXPECT_LT(now.worst, 3 * now.floor) << files << " files";
    }
  }
}

TEST(OrderMixing, OfTinyFilesIsAsGoodAsRandom) {
  CachedCorpus files(std::vector<int>(600, 1), 100, 4 << 20);
  const Blocks now = files.measure(1, 2, 100);
  EXPECT_LT(now.worst, 2 * now.floor);
}

/// The end of an epoch that is shorter than the range.
TEST(OrderMixing, MeasuresWhatAnEpochHas) {
  TemporaryFolder folder;
  FakeCorpus corpus({5}, 300);
  DataConfig config;
  config.context = 32;
  const auto source = corpus.cache(folder.path());
  std::vector<int64_t> whole;
  count_ids(test::all_ids(*source, 0), whole);
  const int64_t windows =
      windows_within(std::accumulate(whole.begin(), whole.end(), int64_t{0}), config.context);
  ASSERT_GT(windows, 2);
  const auto found = measure_mixing(source, config, 1, kNewestOrder, whole,
                                    {{0, windows - 1}, {windows - 1, 1000}, {windows, 7}});
  EXPECT_EQ(found[0].windows.count, windows - 1);
  EXPECT_GT(found[0].ordered, 0);
  EXPECT_EQ(found[1].windows.count, 1);
  EXPECT_EQ(found[2].windows.count, 0);
}

TEST(OrderMixing, OfRealCorporaIsGoodFromTheFirstWindowOn) {
  const auto root = test::shared_folder("data");
  if (!root) GTEST_SKIP() << "needs real data: ../shared/data/{pg19,wikipedia,c4}";
  struct Slice {
    const char *corpus, *folder;
    double now, before;  // most of version 2, least of version 1, in floors
  };
  for (const auto& [name, path, now_most, before_least] :
       {Slice{"pg19", "pg19", 2.4, 3}, Slice{"wiki40b", "wikipedia/wiki40b_format", 1.15, 1.25},
        Slice{"c4", "c4/en", 1.15, 1.05}, Slice{"c4", "c4/tfds", 1.15, 1.1}}) {
    SCOPED_TRACE(path);
    TemporaryFolder folder;
    DataConfig config;
    config.corpus = name;
    config.root = (*root / path).string();
    config.context = 512;
    config.threads = 2;
    const Corpus corpus = Corpus::open(config);
    const auto open = [&] {
      TokenCache::Options options;
      options.folder = folder.path();
      std::vector<TokenCache::Input> inputs;
      for (const auto& file : corpus.files(Split::train)) {
        inputs.push_back({file.name, file.bytes, [=] { return corpus.content_hash(file); },
                          [=] { return corpus.read(file); }});
      }
      return std::make_shared<TokenCache>(options, word_encoder(), inputs);
    };
    for (const uint64_t seed : {1, 2, 3}) {
      const Blocks before = measure_blocks(open, config, seed, kOrderVersion1, 200),
                   now = measure_blocks(open, config, seed, kNewestOrder, 200);
      EXPECT_GT(before.first, before_least * before.floor);
      EXPECT_LT(now.worst, now_most * now.floor);
    }
  }
}

}  // namespace
}  // namespace polysketch
