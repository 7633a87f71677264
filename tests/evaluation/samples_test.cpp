// SPDX-License-Identifier: Apache-2.0
#include "evaluation/samples.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "data/tokenizer_training.hpp"
#include "evaluation/generator.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

class Samples : public testing::Test {
 protected:
  static constexpr int64_t vocabulary = 400;

  Samples() : tokenizer_(trained()), model_(options()) {}

  std::string trained() const {
    std::istringstream book(
        test::read_text(test::source_folder() / "tests/data/texts/pioneer_days.txt"));
    std::vector<std::string> lines;
    for (std::string line; lines.size() < 500 && std::getline(book, line);)
      lines.push_back(line + "\n");
    TokenizerTraining settings;
    settings.recipe = TokenizerRecipe::bpe_bytes;
    settings.vocabulary = vocabulary;
    const auto path = folder_ / "book.model";
    test::write_text(path, train_tokenizer(settings, lines));
    return path.string();
  }
  static Transformer::Options options() {
    Transformer::Options options;
    options.model = {.size = ModelSize::custom,
                     .layers = 1,
                     .width = 16,
                     .heads = 1,
                     .hidden = 16,
                     .vocabulary = vocabulary,
                     .dropout = 0.5,
                     .recompute = false};
    return options;
  }

  test::TemporaryFolder folder_;
  Tokenizer tokenizer_;
  Transformer model_;
};

TEST_F(Samples, AreTextsOfTheirSeeds) {
  const SampleOptions options{.prompt = "The first", .count = 3, .tokens = 20, .context = 8};
  const at::Tensor before = model_.parameters().flat_master().clone();
  const auto samples = draw_samples(model_, tokenizer_, options);
  ASSERT_EQ(samples.size(), 3U);
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].prompt, "The first");
    EXPECT_EQ(samples[i].seed, i + 1);
    EXPECT_EQ(samples[i].text.rfind("The first", 0), 0U) << samples[i].text;
    std::vector<int32_t> ids{tokenizer_.eos()};
    tokenizer_.encode(options.prompt, ids);
    SamplingOptions sampling;
    sampling.tokens = 20;
    sampling.temperature = 0.8;
    sampling.top_p = 0.95;
    sampling.context = 8;
    sampling.seed = i + 1;
    sampling.stop = tokenizer_.eos();
    const auto added = generate(model_, tokenizer_.vocabulary(), ids, sampling);
    ids.erase(ids.begin());
    ids.insert(ids.end(), added.begin(), added.end());
    EXPECT_EQ(samples[i].text, tokenizer_.decode(ids));
  }
  EXPECT_NE(samples[0].text, samples[1].text);
  EXPECT_TRUE(model_.parameters().flat_master().equal(before));
  const auto again = draw_samples(model_, tokenizer_, options);
  for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(again[i].text, samples[i].text);
}

TEST_F(Samples, BeginWithTheStartOfADocument) {
  const auto samples = draw_samples(model_, tokenizer_, {.count = 1, .tokens = 5});
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].prompt, "");
}

TEST_F(Samples, OnlyWholeOnesAreKeptWhenAStopIsAskedFor) {
  int polled = 0;
  const auto samples = draw_samples(
      model_, tokenizer_, {.count = 50, .tokens = 10, .stop = [&] { return ++polled > 60; }});
  EXPECT_GT(samples.size(), 0U);
  EXPECT_LT(samples.size(), 50U);
  const auto all = draw_samples(model_, tokenizer_, {.count = 50, .tokens = 10});
  for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(samples[i].text, all[i].text);
}

TEST_F(Samples, RefuseAPromptThatIsNotText) {
  try {
    draw_samples(model_, tokenizer_, {.prompt = "ab\xff"});
    FAIL() << "taken";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("byte 2"), std::string::npos);
  }
}

}  // namespace
}  // namespace polysketch
