// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer_training.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "data/corpus_files.hpp"
#include "data/loose_files.hpp"
#include "data/tokenizer.hpp"

namespace polysketch {
namespace {

using test::expect_error;
using test::TemporaryFolder;
using test::write_text;

std::string numbered_lines(int file, int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += "file " + std::to_string(file) + " line " + std::to_string(1000 + i) + "\n";
  return text;
}

std::vector<std::string> sample_of(const std::vector<int>& order, int64_t bytes, uint64_t seed) {
  LineSample sample(bytes, seed, false);
  for (const int file : order) {
    sample.begin_file(static_cast<uint64_t>(file));
    sample.add(numbered_lines(file, 500));
  }
  return sample.take();
}

TEST(LineSample, KeepsTheBoundAndDrawsFromAllFiles) {
  const auto lines = sample_of({0, 1, 2, 3}, 8000, 1);
  size_t bytes = 0;
  std::map<char, int> of_file;
  for (const auto& line : lines) {
    bytes += line.size();
    ++of_file[line[5]];
  }
  EXPECT_LE(bytes, 8000U);
  EXPECT_GT(bytes, 7900U);
  EXPECT_EQ(std::set<std::string>(lines.begin(), lines.end()).size(), lines.size());
  for (const auto& [file, count] : of_file) EXPECT_NEAR(count, 125, 40) << file;
}

TEST(LineSample, DependsOnTheSeedAndNotOnTheOrderOfReading) {
  EXPECT_EQ(sample_of({0, 1, 2}, 3000, 1), sample_of({2, 0, 1}, 3000, 1));
  EXPECT_NE(sample_of({0, 1, 2}, 3000, 1), sample_of({0, 1, 2}, 3000, 2));
}

TEST(LineSample, EveryLineIsAsLikelyAsAnother) {
  // 100 lines, a tenth sampled, 400 seeds: each is expected 40 times, standard deviation 6.
  std::map<std::string, int> times;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    LineSample sample(160, seed, false);
    sample.begin_file(0);
    sample.add(numbered_lines(0, 100));
    for (const auto& line : sample.take()) ++times[line];
  }
  EXPECT_EQ(times.size(), 100U);
  for (const auto& [line, count] : times) EXPECT_NEAR(count, 40, 30) << line;
}

TEST(LineSample, LongLinesAreSplitAndNothingIsLost) {
  std::string line;
  for (int i = 0; i < 3000; ++i) line += "word" + std::to_string(i) + " ";
  LineSample sample(1 << 20, 1, false);
  sample.begin_file(0);
  sample.add(line + "\nshort\n" + std::string(10000, 'x') +
             "\nres\xE2\x96\x85"
             "erved");
  EXPECT_EQ(sample.counts().lines, 4);
  EXPECT_EQ(sample.counts().split_lines, 3);
  std::string joined;
  for (const auto& part : sample.take()) {
    EXPECT_LE(part.size(), LineSample::kMaxLineBytes);
    EXPECT_EQ(part.find("\xE2\x96\x85"), std::string::npos);
    joined += part;
  }
  EXPECT_EQ(joined, line + "short" + std::string(10000, 'x') + "reserved");
}

TEST(LineSample, LineEndsAreKeptWhereTheyAreLearnt) {
  LineSample sample(1000, 1, true);
  sample.begin_file(0);
  sample.add("one\n\ntwo");
  EXPECT_EQ(sample.take(), (std::vector<std::string>{"one\n", "\n", "two"}));
}

TokenizerTraining settings_of(TokenizerRecipe recipe, int64_t vocabulary) {
  TokenizerTraining settings;
  settings.recipe = recipe;
  settings.vocabulary = vocabulary;
  return settings;
}

std::vector<std::string> shakespeare_like() {
  std::vector<std::string> lines;
  Philox random(5, RandomPurpose::test);
  const std::vector<std::string> words = {"thou",      "art",    "more",  "lovely", "and",
                                          "temperate", "summer", "winds", "shake",  "darling",
                                          "buds",      "lease",  "hath",  "date"};
  for (int i = 0; i < 400; ++i) {
    std::string line;
    for (int w = 0; w < 9; ++w)
      line += words[random.bounded(words.size())] + (w == 8 ? ".\n" : " ");
    lines.push_back(line);
  }
  return lines;
}

TEST(TrainTokenizer, EveryRecipeHasItsIdsAndAnEndOfDocument) {
  TemporaryFolder folder;
  const auto lines = shakespeare_like();
  for (const auto recipe :
       {TokenizerRecipe::paper, TokenizerRecipe::t5, TokenizerRecipe::bpe_bytes}) {
    const bool paper = recipe == TokenizerRecipe::paper,
               bytes = recipe == TokenizerRecipe::bpe_bytes;
    const auto path = (folder / "m.model").string();
    write_text(path, train_tokenizer(settings_of(recipe, bytes ? 320 : 36), lines));
    const Tokenizer tokenizer(path);
    EXPECT_EQ(tokenizer.vocabulary(), bytes ? 320 : 36);
    EXPECT_EQ(tokenizer.unknown(), paper ? 0 : 2);
    EXPECT_EQ(tokenizer.bos(), paper ? 1 : -1);
    EXPECT_EQ(tokenizer.eos(), paper ? 2 : 1);
    EXPECT_EQ(tokenizer.pad(), paper ? -1 : 0);
    EXPECT_EQ(tokenizer.lossless(), bytes);
    EXPECT_EQ(tokenizer.model().normalizer, bytes ? "identity" : "nmt_nfkc");
    EXPECT_EQ(tokenizer.model().type, bytes ? TokenizerType::bpe : TokenizerType::unigram);
    if (bytes) {
      const auto ids = tokenizer.encode("thou art.\nthou");
      EXPECT_TRUE(std::any_of(ids.begin(), ids.end(), [&](int32_t id) {
        return !tokenizer.is_byte(id) && tokenizer.piece(id).find('\n') != std::string::npos;
      })) << "no learnt piece for line ends";
    }
  }
}

TEST(TrainTokenizer, TheSameInputGivesTheSameModel) {
  for (const auto recipe : {TokenizerRecipe::paper, TokenizerRecipe::bpe_bytes}) {
    const auto settings = settings_of(recipe, recipe == TokenizerRecipe::paper ? 36 : 320);
    EXPECT_EQ(sha256_hex(train_tokenizer(settings, shakespeare_like())),
              sha256_hex(train_tokenizer(settings, shakespeare_like())));
  }
}

TEST(TrainTokenizer, AVocabularyThatCannotBeSaysWhichCan) {
  const auto lines = shakespeare_like();
  for (const auto type : {TokenizerType::unigram, TokenizerType::bpe}) {
    auto settings = settings_of(TokenizerRecipe::paper, 20'000);
    settings.type = type;
    const auto error = test::error_of([&] { train_tokenizer(settings, lines); });
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    const std::string text = error.what(), words = "gives at most ";
    ASSERT_NE(text.find(words), std::string::npos) << text;
    settings.vocabulary = std::stoll(text.substr(text.find(words) + words.size()));
    EXPECT_NO_THROW(train_tokenizer(settings, lines))
        << "the size that the message names: " << settings.vocabulary;
  }
  expect_error(ExitCode::bad_data, {"--vocab-size 10", "--coverage"},
               [&] { train_tokenizer(settings_of(TokenizerRecipe::paper, 10), lines); });
  expect_error(ExitCode::bad_data, {"no text"}, [] { train_tokenizer(TokenizerTraining{}, {}); });
}

TEST(LooseFiles, FoldersFilesAndKinds) {
  TemporaryFolder folder;
  write_text(folder / "in" / "b.txt", "plain");
  write_text(folder / "in" / "deep" / "a.jsonl.gz", test::gzip("{\"text\": \"json\"}\n"));
  write_text(folder / "in" / "skip.bin", "x");
  write_text(folder / "odd.md", "markdown");
  const auto files =
      find_loose_files({(folder / "in").string(), (folder / "odd.md").string()}).files;
  std::vector<std::string> texts;
  const auto bad = std::make_shared<BadRecords>(OnError::error, 0, 0);
  for (const auto& file : files) {
    const auto reader = read_loose_file(file, DataConfig{}, bad);
    for (Document document; reader->next(document);) texts.push_back(document.text);
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"plain", "json", "markdown"}));
  expect_error(ExitCode::missing_input, {"nowhere"},
               [&] { find_loose_files({(folder / "nowhere").string()}); });
  std::filesystem::create_directories(folder / "empty");
  expect_error(ExitCode::missing_input, {"empty", ".txt"},
               [&] { find_loose_files({(folder / "empty").string()}); });
}

std::vector<std::string> names_in(const LooseFiles& found) {
  std::vector<std::string> names;
  for (const auto& file : found.files) names.push_back(file.name);
  return names;
}

TEST(LooseFiles, WhatTheProgramWroteIsNoText) {
  TemporaryFolder folder;
  const std::string record = "{\n  \"recipe\": \"paper\",\n  \"seed\": 1\n}\n";
  const std::string lines = "{\"text\": \"one\"}\n";
  write_text(folder / "in" / "a.txt", "text");
  write_text(folder / "in" / "b.json", lines);
  for (const char* model : {"tok.model", "odd", "odder.txt"}) {
    write_text(folder / "in" / model, "a model");
    write_text(folder / "in" / (std::string(model) + ".json"), record);
  }
  write_text(folder / "in" / "tok.vocab", "a\t0\n");
  write_text(folder / "in" / ".draft.txt", "hidden");
  write_text(folder / "in" / "run" / "config.yaml", "run: {}\n");
  write_text(folder / "in" / "run" / "run.json", "{}\n");
  write_text(folder / "in" / "run" / "samples.txt", "samples");
  write_text(folder / "in" / "cache" / "0123456789abcdef" / std::string(64, 'a') / "index.json",
             "{}\n");
  const LooseFiles found = find_loose_files({(folder / "in").string()});
  EXPECT_EQ(names_in(found), (std::vector<std::string>{"a.txt", "b.json"}));
  std::string said;
  for (const auto& text : found.left_out) said += text + "\n";
  EXPECT_NE(said.find("tokenizer"), std::string::npos) << said;
  EXPECT_NE(said.find("in/run/"), std::string::npos) << said;
  EXPECT_NE(said.find("written by polysketch"), std::string::npos) << said;
  EXPECT_EQ(said.find(".draft"), std::string::npos) << said;
  // The text of somebody is not taken for an output and is not replaced either.
  expect_error(ExitCode::usage, {"--output", "a.txt"}, [&] {
    find_loose_files({(folder / "in").string()}, {(folder / "in" / "a.txt").string()});
  });
  expect_error(ExitCode::usage, {"--output", "b.json"}, [&] {
    find_loose_files({(folder / "in" / "b.json").string()},
                     {(folder / "in" / "b").string(), (folder / "in" / "b.json").string()});
  });
  EXPECT_EQ(names_in(find_loose_files(
                {(folder / "in").string()},
                {(folder / "in" / "odd").string(), (folder / "in" / "odd.json").string()})),
            (std::vector<std::string>{"a.txt", "b.json"}));
}

TEST(LooseFiles, WhatIsNamedTwiceIsReadOnce) {
  TemporaryFolder folder;
  write_text(folder / "in" / "a.txt", "one");
  write_text(folder / "in" / "deep" / "b.txt", "two");
  std::filesystem::create_symlink("a.txt", folder / "in" / "link.txt");
  const std::string in = (folder / "in").string();
  const LooseFiles found =
      find_loose_files({in + "/deep", in, in + "/", in + "/deep/../a.txt", in + "/a.txt"});
  EXPECT_EQ(names_in(found), (std::vector<std::string>{"b.txt", "a.txt"}));
  ASSERT_EQ(found.left_out.size(), 1U);
  EXPECT_NE(found.left_out.front().find("named twice (read once)"), std::string::npos);
}

TEST(LooseFiles, PipesAndLinksToNothingAreNamed) {
  TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ExitCode::bad_data, {"pipe", "not a regular file"},
               [&] { find_loose_files({(folder / "pipe").string()}); });
  write_text(folder / "in" / "a.txt", "text");
  std::filesystem::create_symlink("gone", folder / "in" / "b.txt");
  for (const char* path : {"in", "in/b.txt"})
    expect_error(ExitCode::missing_input, {"in/b.txt: a symbolic link to 'gone'"},
                 [&] { find_loose_files({(folder / path).string()}); });
  std::filesystem::remove(folder / "in" / "b.txt");
  write_text(folder / "blob", "linked");
  std::filesystem::create_symlink("../blob", folder / "in" / "b.txt");
  const auto files = find_loose_files({(folder / "in").string()}).files;
  Document document;
  const auto bad = std::make_shared<BadRecords>(OnError::error, 0, 0);
  ASSERT_TRUE(read_loose_file(files.at(1), DataConfig{}, bad)->next(document));
  EXPECT_EQ(document.text, "linked");
}

}  // namespace
}  // namespace polysketch
