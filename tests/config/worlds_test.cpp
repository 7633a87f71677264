// SPDX-License-Identifier: Apache-2.0
// Numbers of processes among which a step divides.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/rules.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using testing::ElementsAre;

Config configuration(int64_t sequences, Reduce reduce = Reduce::fast, int64_t shards = 8) {
  Config config;
  config.data.context = 512;
  config.training.batch_tokens = sequences * 512;
  config.distributed.reduce = reduce;
  config.distributed.shards = shards;
  return config;
}

TEST(ValidWorlds, AreTheDivisors) {
  EXPECT_THAT(valid_worlds(1), ElementsAre(1));
  EXPECT_THAT(valid_worlds(7), ElementsAre(1, 7));
  EXPECT_THAT(valid_worlds(36), ElementsAre(1, 2, 3, 4, 6, 9, 12, 18, 36))
      << "a square: its root once";
  EXPECT_THAT(valid_worlds(1 << 11), testing::SizeIs(12));
}

TEST(ValidWorlds, DivideTheShardsToo) {
  EXPECT_THAT(valid_worlds(36, 8), ElementsAre(1, 2, 4));
  EXPECT_THAT(valid_worlds(36, 1), ElementsAre(1));
  EXPECT_THAT(valid_worlds(4, 24), ElementsAre(1, 2, 4));
}

/// Row 18 of the fault table: another number of processes, which does not divide.
TEST(ValidWorlds, OthersAreRefusedWithTheList) {
  require_valid_world(configuration(12), 6);
  const auto refusal = [](const Config& config, int64_t world) -> std::string {
    try {
      require_valid_world(config, world);
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::config);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal(configuration(12), 5),
            "training.batch_tokens: the 12 sequences of 512 tokens of a step do not divide among 5 "
            "processes: use 1, 2, 3, 4, 6 or 12 of them");
  EXPECT_EQ(refusal(configuration(12), 24),
            "training.batch_tokens: the 12 sequences of 512 tokens of a step do not divide among "
            "24 processes: use 1, 2, 3, 4, 6 or 12 of them");
  EXPECT_EQ(refusal(configuration(12, Reduce::canonical), 6),
            "distributed.shards: the 8 shards of canonical reduction do not divide among 6 "
            "processes: use 1, 2 or 4 of them");
  EXPECT_EQ(refusal(configuration(12, Reduce::canonical), 8),
            "training.batch_tokens: the 12 sequences of 512 tokens of a step do not divide among 8 "
            "processes: use 1, 2 or 4 of them");
  EXPECT_EQ(refusal(configuration(1), 2),
            "training.batch_tokens: the 1 sequences of 512 tokens of a step do not divide among 2 "
            "processes: use 1 of them");
}

}  // namespace
}  // namespace polysketch
