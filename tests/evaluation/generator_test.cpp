// SPDX-License-Identifier: Apache-2.0
#include "evaluation/generator.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "support/philox.hpp"

namespace polysketch {
namespace {

const std::vector<float> logits{1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

std::map<int32_t, int> draw(const SamplingOptions& options, int count) {
  Philox random(1, RandomPurpose::test);
  std::map<int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[sample(logits, options, random.uniform())];
  return seen;
}

TEST(Sample, TemperatureZeroTakesTheMostProbableAndTheSmallerIdOfEquals) {
  SamplingOptions options;
  options.temperature = 0;
  EXPECT_EQ(sample(logits, options, 0.99), 1);
}

TEST(Sample, FrequenciesFollowTheSoftmax) {
  const auto seen = draw({}, 100000);
  double whole = 0;
  for (const float x : logits) whole += std::exp(x);
  for (size_t i = 0; i < logits.size(); ++i) {
    // four standard deviations
    EXPECT_NEAR(seen.at(static_cast<int32_t>(i)) / 1e5, std::exp(logits[i]) / whole, 0.006);
  }
}

TEST(Sample, TopKKeepsTheKMostProbable) {
  SamplingOptions options;
  options.top_k = 3;
  const auto seen = draw(options, 20000);
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_TRUE(seen.count(1) && seen.count(2) && seen.count(3));
}

TEST(Sample, TopPKeepsTheSmallestSetThatHoldsTheShare) {
  SamplingOptions options;
  options.top_p = 0.5;  // ids 1 and 3 hold 0.41 each
  EXPECT_EQ(draw(options, 20000).size(), 2u);
  options.top_p = 0.3;
  EXPECT_EQ(draw(options, 2000).size(), 1u);
  options.top_p = 0;
  EXPECT_EQ(draw(options, 2000).size(), 1u);
}

TEST(Sample, LowTemperatureSharpens) {
  SamplingOptions cold;
  cold.temperature = 0.1;
  const auto seen = draw(cold, 20000);
  EXPECT_EQ(seen.count(4), 0u);
  EXPECT_EQ(seen.count(0), 0u);
}

TEST(Generate, TheSameSeedGivesTheSameText) {
  Transformer::Options model_options;
  model_options.model = {.size = ModelSize::custom,
                         .layers = 1,
                         .width = 16,
                         .heads = 1,
                         .hidden = 16,
                         .vocabulary = 40,
                         .dropout = 0,
                         .recompute = false};
  Transformer model(model_options);
  SamplingOptions options;
  options.tokens = 20;
  options.context = 8;  // shorter than the text: the window slides
  const auto first = generate(model, 40, {1, 2, 3}, options);
  EXPECT_EQ(first.size(), 20u);
  EXPECT_EQ(generate(model, 40, {1, 2, 3}, options), first);
  options.seed = 2;
  EXPECT_NE(generate(model, 40, {1, 2, 3}, options), first);
  options.stop = first[0];
  options.seed = 1;
  EXPECT_TRUE(generate(model, 40, {1, 2, 3}, options).empty());
}

/// A vocabulary of 40 pieces padded to 64 rows, where training has made the padding as probable as
/// it can be: no setting may draw it, neither by the recurrent form nor past the length of
/// training.
TEST(Generate, NeverDrawsARowWithoutAPiece) {
  Transformer::Options model_options;
  model_options.model = {.size = ModelSize::custom,
                         .layers = 1,
                         .width = 16,
                         .heads = 1,
                         .hidden = 16,
                         .vocabulary = 64,
                         .dropout = 0,
                         .recompute = false};
  Transformer padded(model_options);
  const size_t bias = padded.parameters().index("logit_bias");
  at::Tensor favoured = at::zeros({64});
  favoured.narrow(0, 40, 24).fill_(50);
  padded.parameters().assign(bias, favoured);
  SamplingOptions plain, greedy, few, nucleus, hot;
  greedy.temperature = 0;
  few.top_k = 60;
  nucleus.top_p = 0.9;
  hot.temperature = 100;
  for (SamplingOptions options : {plain, greedy, few, nucleus, hot}) {
    options.tokens = 100;
    options.context = 32;
    for (const int32_t id : generate(padded, 40, {1, 2, 3}, options)) ASSERT_LT(id, 40);
  }
  // what is drawn is what the pieces' own rows say
  favoured.narrow(0, 40, 24).fill_(-1e9);
  hot.tokens = 50;
  const auto before = generate(padded, 40, {1, 2, 3}, hot);
  padded.parameters().assign(bias, favoured);
  EXPECT_EQ(generate(padded, 64, {1, 2, 3}, hot), before);
}

/// The recurrent form against reading everything anew, for a kind that goes on past the length of
/// training.
TEST(Generate, EqualsReadingTheWholeTextForEachToken) {
  Transformer::Options model_options;
  model_options.model = {.size = ModelSize::custom,
                         .layers = 2,
                         .width = 16,
                         .heads = 1,
                         .hidden = 16,
                         .vocabulary = 40,
                         .dropout = 0,
                         .recompute = false};
  model_options.attention.kind = AttentionKind::polysketch;
  model_options.attention.block = 4;
  model_options.attention.sketch_size = 4;
  Transformer model(model_options);
  SamplingOptions options;
  options.tokens = 30;
  options.context = 8;
  options.temperature = 0;
  std::vector<int64_t> ids{1, 2, 3};
  std::vector<int32_t> want;
  while (want.size() < 30) {
    const at::Tensor next = model.logits(at::tensor(ids).unsqueeze(0), {}, /*last_only=*/true);
    want.push_back(next.argmax(-1).item<int32_t>());
    ids.push_back(want.back());
  }
  EXPECT_EQ(generate(model, 40, {1, 2, 3}, options), want);
}

}  // namespace
}  // namespace polysketch
