// SPDX-License-Identifier: Apache-2.0
#include "support/philox.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "support/error.hpp"

namespace polysketch {
namespace {

// The three known-answer vectors that Random123 publishes for philox4x32-10.
TEST(Philox, KnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// Frozen: a change here would silently change every model and every order of data drawn from a
// seed.
TEST(Philox, StreamsStayWhatTheyAre) {
  Philox random(1, RandomPurpose::parameters, 0);
  const auto block = philox4x32({0, 0, 0, 1}, {1, 0});
  EXPECT_EQ(random.next_u32(), block[0]);
  EXPECT_EQ(random.next_u64(), uint64_t{block[2]} << 32 | block[1]);
  EXPECT_EQ(random.next_u32(), block[3]);
  EXPECT_EQ(random.next_u32(), philox4x32({1, 0, 0, 1}, {1, 0})[0]);
}

TEST(Philox, SeedPurposeAndStreamAllMatter) {
  std::set<uint64_t> first;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
    for (const auto purpose : {RandomPurpose::parameters, RandomPurpose::sketch}) {
      for (const uint64_t stream : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32})
        first.insert(Philox(seed, purpose, stream).next_u64());
    }
  }
  EXPECT_EQ(first.size(), 18u);
}

TEST(Philox, UniformMoments) {
  Philox random(3, RandomPurpose::test);
  const int count = 200'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < count; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  EXPECT_NEAR(sum / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
  EXPECT_NEAR(squares / count, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / count));
}

TEST(Philox, NormalMoments) {
  Philox random(4, RandomPurpose::test);
  const int count = 200'000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < count; ++i) {
    const double z = random.normal();
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  EXPECT_NEAR(sum / count, 0, 5 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1, 5 * std::sqrt(2.0 / count));
  EXPECT_NEAR(fourth / count, 3, 5 * std::sqrt(96.0 / count));
}

TEST(Philox, BoundedIsUniform) {
  for (const uint64_t bound : {1, 2, 3, 7, 10}) {
    Philox random(5, RandomPurpose::test, bound);
    std::vector<int> counts(bound);
    const int draws = 20'000;
    for (int i = 0; i < draws; ++i) ++counts.at(random.bounded(bound));
    const double expected = static_cast<double>(draws) / static_cast<double>(bound);
    for (const int count : counts) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected)) << bound;
  }
  // With a bound of 3 * 2^62 a quarter of the plain products would land twice as often in every
  // third value: rejection is exercised.
  Philox random(6, RandomPurpose::test);
  const uint64_t bound = uint64_t{3} << 62;
  int thirds[3] = {};
  for (int i = 0; i < 30'000; ++i) {
    const uint64_t value = random.bounded(bound);
    ASSERT_LT(value, bound);
    ++thirds[value % 3];
  }
  for (const int count : thirds) EXPECT_NEAR(count, 10'000, 5 * std::sqrt(10'000 * 2 / 3.0));
  EXPECT_THROW(random.bounded(0), InternalError);
}

TEST(IndexPermutation, IsAPermutationOfEverySize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    const IndexPermutation permutation(size, 11, RandomPurpose::window_order, size);
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t element = permutation(i);
      ASSERT_LT(element, size);
      ASSERT_FALSE(seen[element]) << size;
      seen[element] = true;
    }
    EXPECT_THROW(permutation(size), InternalError);
  }
}

TEST(IndexPermutation, PositionsAreSpread) {
  // Over many streams, each element of a small range comes first equally often.
  const int streams = 10'000, size = 10;
  std::vector<int> first(size);
  for (int stream = 0; stream < streams; ++stream) {
    ++first[IndexPermutation(size, 1, RandomPurpose::file_order, static_cast<uint64_t>(stream))(0)];
  }
  for (const int count : first) EXPECT_NEAR(count, streams / size, 5 * std::sqrt(streams / size));
}

TEST(IndexPermutation, HugeRangesStayInside) {
  for (const uint64_t size :
       {(uint64_t{1} << 40) + 1, uint64_t{1} << 62, (uint64_t{1} << 63) + 5}) {
    const IndexPermutation permutation(size, 2, RandomPurpose::window_order);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < 1000; ++i) {
      const uint64_t element = permutation(i);
      ASSERT_LT(element, size);
      seen.insert(element);
    }
    EXPECT_EQ(seen.size(), 1000u);
  }
}

}  // namespace
}  // namespace polysketch
