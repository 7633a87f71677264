// SPDX-License-Identifier: Apache-2.0
// The names of the fields of a step: programs read them (docs/formats.md).
#include "training/step_record.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace polysketch {
namespace {

std::vector<std::string> names(const nlohmann::ordered_json& fields) {
  std::vector<std::string> all;
  for (const auto& [name, value] : fields.items()) all.push_back(name);
  return all;
}

StepResult result_of(std::vector<double> waiting, std::vector<double> computing) {
  StepResult result;
  result.loss = 2;
  result.gradient_norm = 0.5;
  result.waiting = std::move(waiting);
  result.computing = std::move(computing);
  result.exchanging = 0.5;
  return result;
}

TEST(StepRecord, OfAProcessAlone) {
  StepFigures figures;
  figures.seconds = 2;
  figures.learning_rate = 1e-3;
  figures.batch_tokens = 1024;
  figures.digest = 255;
  const auto fields = step_fields(result_of({0.5}, {1}), figures);
  EXPECT_THAT(names(fields),
              testing::ElementsAre("loss", "perplexity", "learning_rate", "gradient_norm",
                                   "tokens_per_second", "seconds_per_step", "data_wait_fraction",
                                   "peak_bytes", "token_digest", "epoch"));
  EXPECT_EQ(fields.at("tokens_per_second"), 512);
  EXPECT_EQ(fields.at("data_wait_fraction"), 0.25);
  EXPECT_EQ(fields.at("token_digest"), "00000000000000ff");
}

TEST(StepRecord, OfSeveralProcessesOnKnownDevices) {
  StepFigures figures;
  figures.seconds = 2;
  figures.batch_tokens = 1000;
  figures.processes = 2;
  figures.peak_flops = 1e6;
  figures.cost.flops_per_token = 1000;
  figures.cost.flops_per_token_causal = 800;
  figures.exchange = {.communication = 0.4, .exposed = 0.1};
  const auto fields = step_fields(result_of({0.1, 0.5}, {1, 1.5}), figures);
  EXPECT_THAT(names(fields), testing::IsSupersetOf({"mfu", "mfu_causal", "exchange_fraction",
                                                    "communication_seconds", "communication_hidden",
                                                    "slowest_rank", "computing_seconds"}));
  EXPECT_DOUBLE_EQ(fields.at("mfu").get<double>(), 0.5);
  EXPECT_DOUBLE_EQ(fields.at("mfu_causal").get<double>(), 0.4);
  EXPECT_DOUBLE_EQ(fields.at("communication_hidden").get<double>(), 0.75);
  EXPECT_EQ(fields.at("slowest_rank"), 1);
  EXPECT_EQ(fields.at("data_wait_fraction"), 0.25) << "that of the one that waited longest";
}

}  // namespace
}  // namespace polysketch
