// SPDX-License-Identifier: Apache-2.0
#include "training/train_state.hpp"

#include <gtest/gtest.h>

#include <cmath>

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

TEST(TrainState, SurvivesJson) {
  TrainState state;
  state.step = 12;
  state.sequences = int64_t{1} << 40;
  state.tokens = int64_t{1} << 50;
  state.digest = 0xfedcba9876543210u;
  state.evaluations["perplexity"] = {10, 3.25, 8};
  const TrainState again = TrainState::from_json(nlohmann::json::parse(state.to_json().dump()));
  EXPECT_EQ(again.step, state.step);
  EXPECT_EQ(again.sequences, state.sequences);
  EXPECT_EQ(again.tokens, state.tokens);
  EXPECT_EQ(again.digest, state.digest);
  const EvaluationState& measured = again.evaluations.at("perplexity");
  EXPECT_EQ(measured.last_step, 10);
  EXPECT_EQ(measured.best_value, 3.25);
  EXPECT_EQ(measured.best_step, 8);
  // a validation that was not finite must not make the checkpoint unloadable
  state.evaluations["perplexity"].best_value = NAN;
  EXPECT_TRUE(std::isnan(TrainState::from_json(nlohmann::json::parse(state.to_json().dump()))
                             .evaluations.at("perplexity")
                             .best_value));
}

TEST(TrainState, IsReadFromWhatEarlierVersionsWrote) {
  const char* text = R"({"step": 12, "sequences": 48, "tokens": 6144, "token_digest": "00ff",
                         "last_validation": 10, "best_loss": 3.25})";
  const TrainState state = TrainState::from_json(nlohmann::json::parse(text));
  EXPECT_EQ(state.digest, 255u);
  EXPECT_EQ(state.evaluations.at("perplexity").last_step, 10);
  EXPECT_EQ(state.evaluations.at("perplexity").best_value, 3.25);
  EXPECT_EQ(state.evaluations.at("perplexity").best_step, -1);
  const char* none = R"({"step": 2, "sequences": 8, "tokens": 1024, "token_digest": "00ff",
                         "last_validation": -1, "best_loss": 0.0})";
  EXPECT_TRUE(TrainState::from_json(nlohmann::json::parse(none)).evaluations.empty());
}

TEST(TrainState, KnowsWhatIsDue) {
  TrainState state;
  const auto due = [&](int64_t step, int64_t every) {
    state.step = step;
    return state.is_due("perplexity", every, 25);
  };
  EXPECT_FALSE(due(0, 10));
  EXPECT_TRUE(due(10, 10));
  EXPECT_FALSE(due(11, 10));
  EXPECT_TRUE(due(25, 10)) << "the last step is measured";
  EXPECT_FALSE(due(25, 0));
  state.evaluations["perplexity"].note(20, 3.0);
  EXPECT_FALSE(due(20, 10)) << "it has been measured there";
  EXPECT_TRUE(due(25, 10));
}

TEST(EvaluationState, KeepsTheBest) {
  EvaluationState state;
  state.note(10, NAN);
  EXPECT_TRUE(std::isnan(state.best_value));
  state.note(20, 4.0);
  state.note(30, 3.0);
  state.note(40, 3.5);
  state.note(50, NAN);
  EXPECT_EQ(state.best_value, 3.0);
  EXPECT_EQ(state.best_step, 30);
  EXPECT_EQ(state.last_step, 50);
}

}  // namespace
}  // namespace polysketch
