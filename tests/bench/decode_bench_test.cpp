// SPDX-License-Identifier: Apache-2.0
#include "bench/decode_bench.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <sstream>

namespace polysketch {
namespace {

using testing::HasSubstr;

DecodeBenchOptions tiny(const std::string& kinds) {
  AttentionConfig config;
  config.block = 32;
  config.window = 16;
  config.features = 16;
  config.sketch_size = 8;
  DecodeBenchOptions options;
  options.common.variants = parse_attention_variants(kinds, config);
  options.common.lengths = {40, 168};  // the same place in a block
  options.common.shape = {2, 16};
  options.common.batch = 2;
  options.common.rounds = 2;
  return options;
}

constexpr const char* every_kind =
    "softmax,polynomial,polysketch:learned,polysketch:learned-local,polysketch:random-local,"
    "performer,hedgehog,sliding_window,"
    "local_polynomial";

TEST(DecodeBench, EveryKindHasPositiveFiguresAndStatesThatGrowAsTheySay) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    DecodeBenchOptions options = tiny(every_kind);
    options.common.type = type;
    int64_t last = -1;
    options.common.progress = [&](int64_t done, const std::string&) { last = done; };
    const auto figures = bench_decode(options);
    ASSERT_EQ(figures.size(), 18u);
    EXPECT_EQ(last, progress_steps(options) - 1) << "the last call is announced before it is made";
    for (size_t i = 0; i < figures.size(); i += 2) {
      const DecodeFigures &early = figures[i], &late = figures[i + 1];
      SCOPED_TRACE(early.kind);
      EXPECT_EQ(early.kind, late.kind);
      EXPECT_EQ(early.position, 40);
      EXPECT_EQ(late.position, 168);
      const bool growing = early.kind == "softmax" || early.kind == "polynomial";
      for (const DecodeFigures* f : {&early, &late}) {
        EXPECT_EQ(f->left_out, "");
        EXPECT_EQ(f->tokens, growing ? 64 : 32);
        EXPECT_GT(f->token.least, 0);
        EXPECT_LE(f->token.least, f->token.median);
        EXPECT_LE(f->token.median, f->token.most);
        EXPECT_GT(f->state_bytes, 0);
      }
      EXPECT_EQ(late.state_bytes > early.state_bytes, growing);
    }
  }
}

TEST(DecodeBench, TableAndJsonHoldTheSame) {
  DecodeBenchOptions options = tiny("softmax,polysketch:random");
  options.tokens = 5;
  const auto figures = bench_decode(options);
  const auto json = decode_bench_json(options, figures);
  EXPECT_EQ(json["heads"], 2);
  ASSERT_EQ(json["figures"].size(), 4u);
  std::istringstream table(decode_bench_table(figures));
  std::string line;
  std::getline(table, line);
  for (const auto& row : json["figures"]) {
    std::getline(table, line);
    std::istringstream words(line);
    std::string kind;
    int64_t position = 0;
    double micro = 0;
    words >> kind >> position >> micro;
    EXPECT_EQ(kind, row["kind"]);
    EXPECT_EQ(position, row["position"]);
    EXPECT_NEAR(micro, 1e6 * row["seconds_per_token"].get<double>(), 1e-3 * micro);
    EXPECT_EQ(row["tokens"], 5);
  }
}

TEST(DecodeBench, LeavesOutWhatHasNoStateOrTakesTooLong) {
  DecodeBenchOptions options = tiny("performer,polynomial");
  options.common.variants[0].config.stabiliser = Stabiliser::paper;
  options.common.limit_seconds = 1e-9;
  int64_t last = -1;
  options.common.progress = [&](int64_t done, const std::string&) { last = done; };
  const auto figures = bench_decode(options);
  EXPECT_THAT(figures[0].left_out, HasSubstr("no recurrent form"));
  EXPECT_THAT(figures[2].left_out, HasSubstr("took more than"));
  EXPECT_EQ(last, progress_steps(options) - options.common.rounds - 1)
      << "what is left out counts as done";
  EXPECT_THAT(decode_bench_table(figures), HasSubstr("- has no recurrent form"));
  EXPECT_EQ(decode_bench_json(options, figures)["figures"][0]["left_out"], figures[0].left_out);
}

}  // namespace
}  // namespace polysketch
