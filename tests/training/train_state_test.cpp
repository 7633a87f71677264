// SPDX-License-Identifier: Apache-2.0
#include "training/train_state.hpp"

#include <gtest/gtest.h>

#include "support/error.hpp"

namespace polysketch {
namespace {

/// A new run has the newest order; a checkpoint without the key has the first.
TEST(TrainState, KnowsItsOrder) {
  EXPECT_EQ(TrainState().order_version, kNewestOrder);
  nlohmann::json json = TrainState().to_json();
  EXPECT_EQ(TrainState::from_json(json).order_version, kNewestOrder);
  json["order_version"] = kNewestOrder + 1;
  EXPECT_EQ(TrainState::from_json(json).order_version, kNewestOrder + 1)
      << "refused only where windows are wanted";
  json["order_version"] = 1;
  EXPECT_EQ(TrainState::from_json(json).to_json().at("order_version"), 1);
  json.erase("order_version");
  EXPECT_EQ(TrainState::from_json(json).order_version, kOrderVersion1);
  json["order_version"] = "two";
  EXPECT_THROW(TrainState::from_json(json), UserError);
}

}  // namespace
}  // namespace polysketch
