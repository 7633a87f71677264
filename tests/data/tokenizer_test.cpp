// SPDX-License-Identifier: Apache-2.0
#include "data/tokenizer.hpp"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <thread>

#include "data/corpus_files.hpp"
#include "data/safe_cuts.hpp"
#include "data/tokenizer_losses.hpp"
#include "data/tokenizer_model.hpp"
#include "data/tokenizer_probe.hpp"
#include "data/tokenizer_training.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

using test::corpus_config;
using test::expect_error;
using test::TemporaryFolder;
using test::write_text;

/// Invented prose with repeated words, for tests that must run without the real corpora.
std::vector<std::string> invented_lines(int count) {
  const std::vector<std::string> words = {
      "the",     "river",     "sailor", "quickly", "over",      "mountain",     "caf\xC3\xA9",
      "lantern", "whispered", "and",    "1824",    "(perhaps)", "old-fashioned"};
  Philox random(7, RandomPurpose::test);
  std::vector<std::string> lines;
  for (int i = 0; i < count; ++i) {
    std::string line;
    for (uint64_t w = 0; w < 8 + random.bounded(8); ++w)
      line += words[random.bounded(words.size())] + " ";
    lines.push_back(line + "end.");
  }
  return lines;
}

TokenizerTraining small_training(TokenizerRecipe recipe, int64_t vocabulary) {
  TokenizerTraining settings;
  settings.recipe = recipe;
  settings.vocabulary = vocabulary;
  settings.threads = 2;
  return settings;
}

/// A byte-fallback BPE model of 330 pieces in `folder`.
std::string small_model(const TemporaryFolder& folder) {
  const auto path = folder / "small.model";
  write_text(path,
             train_tokenizer(small_training(TokenizerRecipe::bpe_bytes, 330), invented_lines(200)));
  return path.string();
}

/// One place where two segmentations of the same text differ, and the scores of the two ways.
struct Difference {
  double library = 0, ours = 0;
};

std::vector<Difference> differences(const ModelSummary& model, const std::vector<int>& library,
                                    const std::vector<int32_t>& ours) {
  std::vector<Difference> found;
  size_t i = 0, j = 0;
  while (i < library.size() && j < ours.size()) {
    if (library[i] == ours[j]) {
      ++i, ++j;
      continue;
    }
    Difference difference;
    std::string a, b;
    do {
      const bool first = a.size() <= b.size() && i < library.size();
      if (!first && j >= ours.size()) return {{0, -1e9}};
      const auto& piece = model.pieces[static_cast<size_t>(first ? library[i++] : ours[j++])];
      (first ? a : b) += piece.text;
      (first ? difference.library : difference.ours) += piece.score;
    } while (a != b);
    found.push_back(difference);
  }
  if (i != library.size() || j != ours.size()) found.push_back({0, -1e9});
  return found;
}

/// The library's result for the whole text is the yardstick. BPE gives the same ids. A unigram
/// model picks the best sum of scores, which the library adds up in single precision from the start
/// of the text: far into a book, ways that differ by less than the rounding of a sum of 10^5
/// (0.008) come out by chance. Ours are sums of short stretches, so there they may be better, never
/// worse.
void expect_same_as_whole(const std::string& path, const std::vector<std::string>& documents) {
  const Tokenizer tokenizer(path);
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(path).ok());
  int64_t tokens = 0, different = 0;
  for (const auto& document : documents) {
    std::vector<int> wanted;
    ASSERT_TRUE(library.Encode(document, &wanted).ok());
    const auto ids = tokenizer.encode(document);
    tokens += static_cast<int64_t>(ids.size());
    if (std::equal(ids.begin(), ids.end(), wanted.begin(), wanted.end())) continue;
    ASSERT_EQ(tokenizer.model().type, TokenizerType::unigram)
        << "ids differ from those of the whole document";
    for (const auto& difference : differences(tokenizer.model(), wanted, ids)) {
      ++different;
      EXPECT_GE(difference.ours, difference.library - 1e-5);
      EXPECT_LE(difference.ours, difference.library + 0.05);
    }
  }
  EXPECT_GT(tokens, 0);
  EXPECT_LT(different, 1 + tokens / 1000);
}

TEST(Tokenizer, PiecesOfADocumentGiveTheIdsOfTheWhole) {
  const auto data = test::shared_folder("data");
  if (!data) GTEST_SKIP() << "no folder ../shared/data with real books and models";
  auto documents = test::texts_of(corpus_config("pg19", *data / "pg19"), Split::test);
  for (auto& text : test::texts_of(corpus_config("c4", *data / "c4" / "en"), Split::validation))
    documents.push_back(std::move(text));
  for (auto& text : test::texts_of(corpus_config("wiki40b", *data / "wikipedia"), Split::test))
    documents.push_back(std::move(text));
  expect_same_as_whole((*data / "sentencepiece" / "t5-base.model").string(), documents);
  expect_same_as_whole((*data / "sentencepiece" / "bpe_32k_c4.model").string(), documents);
}

TEST(Tokenizer, PiecesGiveTheIdsOfTheWholeForFreshModelsToo) {
  const auto data = test::shared_folder("data");
  if (!data) GTEST_SKIP() << "no folder ../shared/data with real books";
  const auto books = test::texts_of(corpus_config("pg19", *data / "pg19"), Split::validation);
  TemporaryFolder folder;
  for (const auto recipe :
       {TokenizerRecipe::paper, TokenizerRecipe::t5, TokenizerRecipe::bpe_bytes}) {
    LineSample sample(600'000, 1, keeps_line_ends(recipe));
    sample.begin_file(0);
    for (const auto& book : books) sample.add(book);
    const auto path = folder / (std::string(recipe_name(recipe)) + ".model");
    write_text(path, train_tokenizer(small_training(recipe, 2000), sample.take()));
    expect_same_as_whole(path.string(), books);
  }
}

TEST(Tokenizer, HostileTextsAreSplitSafely) {
  // Unknown characters in runs, blanks in runs, text that looks like pieces, the blank mark itself,
  // invalid UTF-8.
  const std::vector<std::string> texts = {
      "\xE6\xBC\xA2\xE5\xAD\x97\xE6\xBC\xA2 river \xE6\xBC\xA2\xE5\xAD\x97 "
      "the\xE5\xAD\x97\xE6\xBC\xA2",
      "  the   river \n\n\t sailor  ",
      "<s> </s> <unk> <pad> <0x0A>",
      "\xE2\x96\x81the\xE2\x96\x81\xE2\x96\x81river",
      "the \xFF\xFE river",
      "",
      " ",
      "\n",
      std::string("a\0b", 3),
      "_NEWLINE_the_NEWLINE_"};
  TemporaryFolder folder;
  for (const auto recipe :
       {TokenizerRecipe::paper, TokenizerRecipe::t5, TokenizerRecipe::bpe_bytes}) {
    for (const auto type : {TokenizerType::unigram, TokenizerType::bpe}) {
      for (const bool bytes : {false, true}) {
        auto settings = small_training(recipe, bytes ? 300 : 45);
        settings.type = type;
        settings.byte_fallback = bytes;
        settings.user_pieces = {"_NEWLINE_"};
        const auto path = (folder / "m.model").string();
        write_text(path, train_tokenizer(settings, invented_lines(200)));
        const Tokenizer tokenizer(path);
        sentencepiece::SentencePieceProcessor library;
        ASSERT_TRUE(library.Load(path).ok());
        for (const auto& text : texts) {
          // The blank mark gets ids of its own in models that lose nothing else.
          if (tokenizer.escapes_blank_mark() && text.find(kBlankMark) != std::string::npos)
            continue;
          std::vector<int> wanted;
          ASSERT_TRUE(library.Encode(text, &wanted).ok());
          EXPECT_EQ(tokenizer.encode(text), std::vector<int32_t>(wanted.begin(), wanted.end()))
              << recipe_name(recipe) << ": " << text;
        }
      }
    }
  }
}

/// Random valid UTF-8 without NUL: letters of the model's text, blanks, controls, U+2581 and its
/// neighbours, text that looks like pieces, characters of all planes.
std::string random_text(Philox& random) {
  const std::vector<std::string> parts = {" ",
                                          "  ",
                                          "\xE2\x96\x81",
                                          "\xE2\x96\x81\xE2\x96\x81",
                                          "\xE2\x96\x80",
                                          "\xE2\x96\x82",
                                          "\n",
                                          "\r\n",
                                          "\t",
                                          "\x01",
                                          "\x7F",
                                          "the",
                                          "river",
                                          "<0xE2>",
                                          "<0xE2><0x96>",
                                          "</s>",
                                          "<unk>",
                                          "<0x0A>",
                                          "\xE2\x96\x85",
                                          "\xEF\xBB\xBF",
                                          "\xEF\xBF\xBD",
                                          "_NEWLINE_",
                                          "caf\xC3\xA9"};
  std::string text;
  for (uint64_t i = 0; i < random.bounded(24); ++i) {
    if (random.bounded(3) > 0) {
      text += parts[random.bounded(parts.size())];
      continue;
    }
    const uint32_t limit =
        std::array<uint32_t, 4>{0x80, 0x800, 0x10000, 0x110000}[random.bounded(4)];
    const auto c = static_cast<uint32_t>(1 + random.bounded(limit - 1));
    if (c < 0xD800 || c > 0xDFFF) append_utf8(c, text);
  }
  return text;
}

TEST(Tokenizer, LosslessModelsGiveEveryTextBack) {
  TemporaryFolder folder;
  std::vector<std::string> paths;
  for (const auto type : {TokenizerType::bpe, TokenizerType::unigram}) {
    auto settings = small_training(TokenizerRecipe::bpe_bytes, 300);
    settings.type = type;
    settings.user_pieces = {"_NEWLINE_", "\xE2\x96\x81\xE2\x96\x81"};
    paths.push_back((folder / tokenizer_type_name(type)).string());
    write_text(paths.back(), train_tokenizer(settings, invented_lines(200)));
  }
  if (const auto data = test::shared_folder("data"))
    paths.push_back((*data / "sentencepiece" / "bpe_32k_c4.model").string());
  for (const auto& path : paths) {
    const Tokenizer tokenizer(path);
    ASSERT_EQ(tokenizer.losses(), std::vector<std::string>{}) << path;
    Philox random(11, RandomPurpose::test);
    for (int i = 0; i < 20'000; ++i) {
      const std::string text = random_text(random);
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << path << ": text " << i;
    }
  }
}

TEST(Tokenizer, TheBlankMarkOfATextIsItsBytesAndEverythingElseAsBefore) {
  TemporaryFolder folder;
  const std::string path = small_model(folder);
  const Tokenizer tokenizer(path);
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(path).ok());
  ASSERT_TRUE(tokenizer.escapes_blank_mark());
  EXPECT_NE(tokenizer.encoding_id(), tokenizer.sha256()) << "cached ids of such texts are others";
  const std::vector<int32_t> mark = {tokenizer.id_of("<0xE2>"), tokenizer.id_of("<0x96>"),
                                     tokenizer.id_of("<0x81>")};
  const auto ids = tokenizer.encode("the\xE2\x96\x81river");
  EXPECT_NE(std::search(ids.begin(), ids.end(), mark.begin(), mark.end()), ids.end());
  Philox random(12, RandomPurpose::test);
  for (int i = 0; i < 5000; ++i) {
    const std::string text = random_text(random);
    if (text.find(kBlankMark) != std::string::npos) continue;
    std::vector<int> wanted;
    ASSERT_TRUE(library.Encode(text, &wanted).ok());
    ASSERT_EQ(tokenizer.encode(text), std::vector<int32_t>(wanted.begin(), wanted.end())) << text;
  }
}

TEST(Tokenizer, WhatAModelLosesIsNamed) {
  TemporaryFolder folder;
  const auto losses = [&](TokenizerRecipe recipe, int64_t vocabulary, bool bytes) {
    auto settings = small_training(recipe, vocabulary);
    settings.byte_fallback = bytes;
    const auto path = (folder / "m.model").string();
    write_text(path, train_tokenizer(settings, invented_lines(200)));
    const Tokenizer tokenizer(path);
    EXPECT_EQ(tokenizer.lossless(), tokenizer.losses().empty());
    std::string all;
    for (const auto& loss : tokenizer.losses()) all += loss + "\n";
    return all;
  };
  const std::string paper = losses(TokenizerRecipe::paper, 45, false);
  for (const char* part :
       {"line ends", "blanks", "tabs", "U+2581", "without a piece", "normaliser"})
    EXPECT_NE(paper.find(part), std::string::npos) << part << " is not in:\n" << paper;
  const std::string with_bytes = losses(TokenizerRecipe::t5, 300, true);
  EXPECT_NE(with_bytes.find("line ends"), std::string::npos) << with_bytes;
  EXPECT_NE(with_bytes.find("normaliser"), std::string::npos) << with_bytes;
  EXPECT_EQ(with_bytes.find("without a piece"), std::string::npos) << with_bytes;
  const std::string no_bytes = losses(TokenizerRecipe::bpe_bytes, 60, false);
  EXPECT_NE(no_bytes.find("without a piece"), std::string::npos) << no_bytes;
  EXPECT_NE(no_bytes.find("U+2581"), std::string::npos) << no_bytes;
  EXPECT_EQ(no_bytes.find("blanks"), std::string::npos) << no_bytes;
  EXPECT_EQ(losses(TokenizerRecipe::bpe_bytes, 330, true), "");
}

TEST(Losses, ASingleCharacterAmongAllIsFound) {
  for (const uint32_t lost : {0x1u, 0x7Fu, 0xADu, 0x2028u, 0x2581u, 0xFEFFu, 0xFFFFu, 0x10000u}) {
    std::string character;
    append_utf8(lost, character);
    const auto losses = find_losses(
        [&](std::string text) {
          for (size_t at = text.find(character); at != std::string::npos; at = text.find(character))
            text.erase(at, character.size());
          return text;
        },
        {});
    ASSERT_EQ(losses.size(), 1U) << std::hex << lost;
    EXPECT_NE(losses.front().find(fmt::format("U+{:04X}", lost)), std::string::npos)
        << losses.front();
  }
}

TEST(Tokenizer, TheSameIdsFromManyThreadsAndAfterOtherTokenizers) {
  TemporaryFolder folder;
  const auto path = small_model(folder);
  const auto other = (folder / "other.model").string();
  write_text(other,
             train_tokenizer(small_training(TokenizerRecipe::paper, 45), invented_lines(200)));
  const Tokenizer tokenizer(path), second(other);
  const auto lines = invented_lines(300);
  std::vector<std::vector<int32_t>> wanted;
  for (const auto& line : lines) wanted.push_back(tokenizer.encode(line));
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < lines.size(); ++i) {
        (void)second.encode(lines[i]);
        wrong[t] += tokenizer.encode(lines[i]) != wanted[i] ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, (std::array<int, 4>{}));
}

TEST(Tokenizer, KnowsItsSpecialPieces) {
  const auto data = test::shared_folder("data");
  if (!data) GTEST_SKIP() << "no folder ../shared/data with real models";
  const Tokenizer t5((*data / "sentencepiece" / "t5-base.model").string());
  EXPECT_EQ(t5.vocabulary(), 32000);
  EXPECT_EQ(t5.eos(), 1);
  EXPECT_EQ(t5.unknown(), 2);
  EXPECT_EQ(t5.pad(), 0);
  EXPECT_EQ(t5.bos(), -1);
  EXPECT_FALSE(t5.lossless());
  EXPECT_EQ(t5.sha256(), "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86");
  EXPECT_EQ(t5.decode(t5.encode("World!\nNew")), "World! New");
  const Tokenizer bpe((*data / "sentencepiece" / "bpe_32k_c4.model").string());
  EXPECT_TRUE(bpe.lossless());
  EXPECT_TRUE(bpe.is_byte(bpe.id_of("<0x0A>")));
  EXPECT_FALSE(bpe.is_byte(bpe.eos()));
  EXPECT_EQ(bpe.decode(bpe.encode("World!\nNew")), "World!\nNew");
}

TEST(Tokenizer, MustFitTheModelAndTheCleaning) {
  TemporaryFolder folder;
  const Tokenizer plain(small_model(folder));
  plain.require_fits(330, Cleaning::none);
  plain.require_fits(512, Cleaning::plain);
  expect_error(ExitCode::config, {"330 pieces", "model.vocabulary: 329"},
               [&] { plain.require_fits(329, Cleaning::none); });
  expect_error(ExitCode::config, {"data.cleaning", "_START_ARTICLE_"},
               [&] { plain.require_fits(330, Cleaning::markers); });
  auto settings = small_training(TokenizerRecipe::bpe_bytes, 340);
  settings.user_pieces = {"_START_ARTICLE_", "_START_SECTION_", "_START_PARAGRAPH_", "_NEWLINE_"};
  write_text(folder / "markers.model", train_tokenizer(settings, invented_lines(200)));
  const Tokenizer markers((folder / "markers.model").string());
  markers.require_fits(340, Cleaning::markers);
  const auto ids = markers.encode("_START_ARTICLE_the river_START_PARAGRAPH_the_NEWLINE_sailor");
  for (const auto& piece : settings.user_pieces)
    EXPECT_EQ(std::count(ids.begin(), ids.end(), markers.id_of(piece)),
              piece == "_START_SECTION_" ? 0 : 1);
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNotDecoded) {
  TemporaryFolder folder;
  const Tokenizer tokenizer(small_model(folder));
  expect_error(ExitCode::bad_data, {"id 330", "330 pieces"}, [&] {
    (void)tokenizer.decode({5, 330});
  });
  expect_error(ExitCode::bad_data, {"id -1"}, [&] { (void)tokenizer.decode({-1}); });
}

class ModelFile : public testing::Test {
 protected:
  ModelFile() : good_(test::read_text(small_model(folder_))) {}
  void expect_refused(const std::string& content, const std::string& cause) {
    SCOPED_TRACE(cause);
    const auto path = (folder_ / "bad.model").string();
    write_text(path, content);
    expect_error(ExitCode::bad_data, {path, cause}, [&] { const Tokenizer tokenizer(path); });
  }
  static std::string piece(const std::string& text, float score = 0, int type = 1) {
    std::string bits(4, '\0');
    std::memcpy(bits.data(), &score, 4);
    return test::wire_bytes(1, test::wire_bytes(1, text) + test::varint(2 << 3 | 5) + bits +
                                   test::varint(3 << 3) +
                                   test::varint(static_cast<uint64_t>(type)));
  }
  TemporaryFolder folder_;
  std::string good_;
};

TEST_F(ModelFile, HostileModelsAreRefusedBeforeSentencePieceSeesThem) {
  expect_refused("", "is empty");
  expect_refused("no model at all, just words", "not a SentencePiece model");
  expect_refused(good_.substr(0, good_.size() / 2), "SentencePiece");
  expect_refused(good_ + piece(std::string(1025, 'x')), "longer than 1024 bytes");
  expect_refused(good_ + piece(std::string(200'000, 'x')), "longer than 1024 bytes");
  expect_refused(good_ + piece("nan", std::numeric_limits<float>::quiet_NaN()), "not finite");
  expect_refused(good_ + piece("inf", -std::numeric_limits<float>::infinity()), "not finite");
  expect_refused(good_ + piece(std::string("a\0b", 3)), "NUL");
  expect_refused(good_ + piece(""), "is empty");
  expect_refused(good_ + piece("\xFF"), "not valid UTF-8");
  expect_refused(good_ + piece("<unk>"), "appears twice");
  expect_refused(good_ + piece("new unknown", 0, 2), "2 unknown pieces");
  expect_refused(good_ + piece("odd", 0, 9), "unknown type");
  // A later field of the same number is merged into the first by protocol buffers.
  const auto charsmap = [](const std::string& map) {
    return test::wire_bytes(3, test::wire_bytes(2, map));
  };
  expect_refused(good_ + charsmap("abc"), "character map");
  expect_refused(good_ + charsmap(test::little_endian(1 << 20, 4) + std::string(100, '\0')),
                 "character map");
  expect_refused(good_ + charsmap(test::little_endian(4096, 4) + std::string(5000, '\xFF') + '\0'),
                 "");
}

TEST_F(ModelFile, AMissingModelSaysSo) {
  expect_error(ExitCode::missing_input, {"none.model"},
               [&] { const Tokenizer tokenizer((folder_ / "none.model").string()); });
}

TEST_F(ModelFile, NoCutAndNoChangedByteBringsTheProgramDown) {
  const std::string path = (folder_ / "bad.model").string();
  Philox random(3, RandomPurpose::test);
  int refused = 0;
  for (int i = 0; i < 120; ++i) {
    std::string damaged = good_;
    if (i % 3 == 0) {
      damaged.resize(random.bounded(damaged.size()));
    } else {
      for (int k = 0; k < (i % 3 == 1 ? 1 : 20); ++k)
        damaged[random.bounded(damaged.size())] = static_cast<char>(random.next_u32());
    }
    write_text(path, damaged);
    try {
      const Tokenizer tokenizer(path);
      (void)tokenizer.encode("The sailor whispered over the mountain.");
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 50);
}

TEST(Probe, NamesTheSignalAndTheDelay) {
  EXPECT_EQ(probe_in_child([] { return std::string(); }, 10), "");
  EXPECT_EQ(probe_in_child([] { return std::string("what is wrong"); }, 10), "what is wrong");
  EXPECT_NE(probe_in_child(
                []() -> std::string {
                  raise(SIGSEGV);
                  return "";
                },
                10)
                .find("signal 11"),
            std::string::npos);
  EXPECT_NE(probe_in_child([]() -> std::string { abort(); }, 10).find("signal 6"),
            std::string::npos);
  EXPECT_NE(probe_in_child(
                []() -> std::string {
                  while (true) pause();
                },
                1)
                .find("more than 1 s"),
            std::string::npos);
}

TEST(SafeCuts, NoPieceLiesAcrossACut) {
  TemporaryFolder folder;
  const Tokenizer tokenizer(small_model(folder));
  const SafeCuts cuts(tokenizer.model());
  const std::string text =
      "\xE2\x96\x81the\xE2\x96\x81sailor\xE2\x96\x81whispered\xE2\x96\x81"
      "1824\nzq";
  std::vector<size_t> found;
  for (size_t at = 0; at < text.size();) {
    at = cuts.next(text, at);
    found.push_back(at);
  }
  EXPECT_EQ(found.back(), text.size());
  EXPECT_GT(found.size(), 3U);
  for (const auto& piece : tokenizer.model().pieces) {
    for (size_t at = text.find(piece.text); at != std::string::npos;
         at = text.find(piece.text, at + 1)) {
      for (const size_t cut : found)
        EXPECT_FALSE(at < cut && cut < at + piece.text.size()) << piece.text << " at " << at;
    }
  }
}

}  // namespace
}  // namespace polysketch
