// SPDX-License-Identifier: Apache-2.0
#include "data/corpus.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/corpus_files.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

using test::corpus_config;
using test::expect_error;
using test::read_all;
using test::TemporaryFolder;
using test::texts_of;
using test::write_text;

#define NEED_DATA(folder)                                                        \
  const auto shared = test::shared_folder("data");                               \
  if (!shared) GTEST_SKIP() << "no folder ../shared/data with the real corpora"; \
  const auto data = *shared / (folder)

TEST(Corpus, Pg19HoldsTheBooksAndWordsOfItsManifest) {
  NEED_DATA("pg19");
  const Corpus corpus = Corpus::open(corpus_config("pg19", data));
  const std::array<std::pair<Split, std::pair<size_t, int64_t>>, 3> wanted = {
      {{Split::train, {55, 2960717}},
       {Split::validation, {4, 149205}},
       {Split::test, {4, 178208}}}};
  for (const auto& [split, counts] : wanted) {
    int64_t words = 0;
    const auto books = read_all(corpus, split);
    for (const auto& book : books) words += count_words(book.text);
    EXPECT_EQ(books.size(), counts.first);
    EXPECT_EQ(words, counts.second);
  }
  EXPECT_EQ(corpus.published_words(Split::test), 6966499);
  EXPECT_EQ(corpus.bad_records().counts().bad, 0);
}

TEST(Corpus, Pg19BooksAreByteForByteTheFiles) {
  NEED_DATA("pg19");
  const Corpus corpus = Corpus::open(corpus_config("pg19", data));
  const auto files = corpus.files(Split::test);
  ASSERT_EQ(files.front().name, "test/10052.txt");
  Document document;
  ASSERT_TRUE(corpus.read(files.front())->next(document));
  EXPECT_EQ(document.text, test::read_text(data / "test" / "10052.txt"));
  const auto book = corpus.book(files.front());
  ASSERT_TRUE(book);
  EXPECT_FALSE(book->title.empty());
  EXPECT_EQ(book->year.size(), 4U);
  EXPECT_TRUE(book->link.starts_with("http"));
  EXPECT_FALSE(corpus.book({"test/0.txt", "", 0}));
}

TEST(Corpus, C4IsTheSameInJsonAndTfRecord) {
  NEED_DATA("c4");
  for (const auto& [split, count] :
       {std::pair{Split::train, size_t{1000}}, std::pair{Split::validation, size_t{200}}}) {
    auto json = texts_of(corpus_config("c4", data / "en"), split);
    auto records = texts_of(corpus_config("c4", data / "tfds"), split);
    EXPECT_EQ(json.size(), count);
    std::sort(json.begin(), json.end());
    std::sort(records.begin(), records.end());
    EXPECT_EQ(json, records);
  }
}

TEST(Corpus, C4ParquetRowsAreDocumentsOfTheJsonLines) {
  NEED_DATA("c4");
  EXPECT_EQ(texts_of(corpus_config("c4", data / "parquet"), Split::train).size(), 200U);
  const auto rows = texts_of(corpus_config("c4", data / "parquet"), Split::validation);
  const auto json = texts_of(corpus_config("c4", data / "en"), Split::validation);
  ASSERT_EQ(rows.size(), 40U);
  // the two samples share this document
  EXPECT_NE(std::find(json.begin(), json.end(), rows.front()), json.end());
}

TEST(Corpus, TheRootMayBeTheFolderAboveOrTheOneWithTheFiles) {
  NEED_DATA("c4");
  const auto names = [](const DataConfig& config) {
    std::vector<uint64_t> sizes;
    for (const auto& file : Corpus::open(config).files(Split::train)) sizes.push_back(file.bytes);
    return sizes;
  };
  EXPECT_EQ(names(corpus_config("c4", data)), names(corpus_config("c4", data / "en")));
  EXPECT_EQ(names(corpus_config("c4", data / "tfds")),
            names(corpus_config("c4", data / "tfds" / "c4" / "en" / "3.1.0")));
}

std::vector<std::string> wiki_texts(const std::filesystem::path& file) {
  std::vector<std::string> texts;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    texts.push_back(nlohmann::json::parse(line).at("text"));
  return texts;
}

TEST(Corpus, Wiki40bIsTheSameInItsThreeFormatsAndModes) {
  NEED_DATA("wikipedia");
  const auto real = wiki_texts(data / "wiki40b_format" / "en-train.jsonl");
  ASSERT_EQ(real.size(), 80U);
  TemporaryFolder folder;
  std::string records;
  std::vector<std::optional<std::string>> rows;
  for (const auto& text : real) {
    records +=
        test::tfrecord(test::example({{"wikidata_id", "Q1"}, {"text", text}, {"version_id", "1"}}));
    rows.emplace_back(text);
  }
  write_text(folder / "records" / "wiki40b-train.tfrecord-00000-of-00001", records);
  test::write_parquet(folder / "rows" / "en" / "train-00000-of-00001.parquet", "text", rows);
  for (const auto mode : {Cleaning::none, Cleaning::plain, Cleaning::markers}) {
    const auto texts = [&](const std::filesystem::path& root) {
      auto config = corpus_config("wiki40b", root);
      config.cleaning = mode;
      return texts_of(config, Split::train);
    };
    const auto json = texts(data);
    EXPECT_EQ(json, texts(data / "wiki40b_format"));
    EXPECT_EQ(json, texts(folder / "records"));
    EXPECT_EQ(json, texts(folder / "rows"));
    if (mode == Cleaning::none) {
      EXPECT_EQ(json, real);
    }
    for (const auto& text : json) {
      EXPECT_EQ(text.find("_START_ARTICLE_") != std::string::npos, mode != Cleaning::plain);
      EXPECT_TRUE(mode != Cleaning::plain || text.find("_NEWLINE_") == std::string::npos);
    }
  }
}

TEST(Corpus, ABytesLiteralIsTheTextItStandsFor) {
  TemporaryFolder folder;
  write_text(folder / "en-train.jsonl",
             nlohmann::json{{"text", "b'\\n_START_ARTICLE_\\nCaf\\xc3\\xa9'"}}.dump() + "\n");
  EXPECT_EQ(texts_of(corpus_config("wiki40b", folder.path()), Split::train),
            std::vector<std::string>{"\n_START_ARTICLE_\nCaf\xC3\xA9"});
}

TEST(Corpus, OwnTextAndJsonLines) {
  TemporaryFolder folder;
  write_text(folder / "train" / "b.txt", "second\n");
  write_text(folder / "train" / "a.txt", "first\n");
  write_text(folder / "train" / "notes.md", "not text");
  write_text(folder / "train" / "c.txt.gz", test::gzip("third"));
  EXPECT_EQ(texts_of(corpus_config("text", folder.path()), Split::train),
            (std::vector<std::string>{"first\n", "second\n", "third"}));
  write_text(folder / "train.jsonl", "{\"text\": \"one\"}\n\n{\"id\": 3, \"text\": \"two\"}");
  write_text(folder / "train-2.json.gz", test::gzip("{\"text\": \"zero\"}\n"));
  EXPECT_EQ(texts_of(corpus_config("jsonl", folder.path()), Split::train),
            (std::vector<std::string>{"zero", "one", "two"}));
}

TEST(Corpus, ADescriptionOfOnesOwn) {
  TemporaryFolder folder;
  write_text(folder / "mine.yaml",
             "name: mine\nlayouts:\n  - format: json_lines\n    field: body\n    train: "
             "[\"part-?.json\"]\n");
  write_text(folder / "part-1.json", "{\"body\": \"hello\"}\n");
  write_text(folder / "part-10.json", "{\"body\": \"not matched\"}\n");
  EXPECT_EQ(texts_of(corpus_config((folder / "mine.yaml").string(), folder.path()), Split::train),
            std::vector<std::string>{"hello"});
  write_text(folder / "wrong.yaml",
             "name: mine\nlayouts:\n  - format: json_lines\n    feild: body\n");
  expect_error(ExitCode::config, {"wrong.yaml:4:5", "feild", "did you mean 'field'"}, [&] {
    Corpus::open(corpus_config((folder / "wrong.yaml").string(), folder.path()));
  });
}

TEST(Corpus, WhatIsMissingIsNamed) {
  TemporaryFolder folder;
  expect_error(ExitCode::config,
               {"pg20", "pg19", "wiki40b", "c4", "text", "jsonl", "did you mean 'pg19'"},
               [&] { Corpus::open(corpus_config("pg20", folder.path())); });
  expect_error(ExitCode::missing_input, {"nowhere", "data.root"},
               [&] { Corpus::open(corpus_config("text", folder / "nowhere")); });
  expect_error(ExitCode::missing_input, {"train/*.txt", "data.root"}, [&] {
    (void)Corpus::open(corpus_config("text", folder.path())).files(Split::train);
  });
  expect_error(ExitCode::missing_input, {"no such split"},
               [&] { (void)Corpus::open(corpus_config("c4", folder.path())).files(Split::test); });
  auto config = corpus_config("c4", folder.path());
  config.cleaning = Cleaning::plain;
  expect_error(ExitCode::config, {"data.cleaning", "c4"}, [&] { Corpus::open(config); });
}

TEST(Corpus, TwoVersionsOfACorpusAreNotMixed) {
  TemporaryFolder folder;
  const std::string record = test::tfrecord(test::example({{"text", "a page"}}));
  write_text(folder / "en" / "3.0.1" / "c4-train.tfrecord-00000-of-00001", record);
  write_text(folder / "en" / "3.1.0" / "c4-train.tfrecord-00000-of-00001", record);
  expect_error(ExitCode::bad_data, {"en/3.0.1", "en/3.1.0", "data.root"},
               [&] { (void)Corpus::open(corpus_config("c4", folder.path())).files(Split::train); });
}

TEST(Corpus, TheContentHashIsOfTheBytesAndIsRemembered) {
  TemporaryFolder folder;
  write_text(folder / "train" / "a.txt", "some text");
  auto config = corpus_config("text", folder.path());
  config.cache = (folder / "cache").string();
  const Corpus corpus = Corpus::open(config);
  const auto file = corpus.files(Split::train).front();
  EXPECT_EQ(corpus.content_hash(file), sha256_hex("some text"));
  const auto remembered = folder / "cache" / "file-hashes";
  EXPECT_FALSE(std::filesystem::exists(remembered))
      << "a file this young may still change within the clock's tick";
  std::filesystem::last_write_time(
      folder / "train" / "a.txt",
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_EQ(corpus.content_hash(file), sha256_hex("some text"));
  ASSERT_TRUE(std::filesystem::exists(remembered));
  // That the note is used shows when it is wrong.
  write_text(std::filesystem::directory_iterator(remembered)->path(), std::string(64, 'f'));
  EXPECT_EQ(corpus.content_hash(file), std::string(64, 'f'));
  write_text(folder / "train" / "a.txt", "other text");
  EXPECT_EQ(corpus.content_hash(file), sha256_hex("other text"));
}

TEST(Corpus, ProcessingIdChangesWithWhatDecidesTheText) {
  TemporaryFolder folder;
  auto config = corpus_config("wiki40b", folder.path());
  const auto id = [&] { return Corpus::open(config).processing_id(); };
  const std::string before = id();
  EXPECT_EQ(before, id());
  config.cleaning = Cleaning::plain;
  EXPECT_NE(before, id());
  config.cleaning = Cleaning::none;
  config.max_document_bytes /= 2;
  EXPECT_NE(before, id());
}

}  // namespace
}  // namespace polysketch
