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
  expect_error(ExitCode::missing_input, {"('c4') has no test split: set data.root"},
               [&] { (void)Corpus::open(corpus_config("c4", folder.path())).files(Split::test); });
  write_text(folder / "c4-validation.0.json.gz", test::gzip("{\"text\": \"a\"}\n"));
  write_text(folder / "train" / "a.txt", "text");
  write_text(folder / "validation" / "a.txt", "text");
  expect_error(ExitCode::missing_input, {"('c4') has no test split; it has validation: choose"},
               [&] { (void)Corpus::open(corpus_config("c4", folder.path())).files(Split::test); });
  const Corpus text = Corpus::open(corpus_config("text", folder.path()));
  expect_error(ExitCode::missing_input,
               {"('text') has no test split; it has train, validation", "test/*.txt"},
               [&] { (void)text.files(Split::test); });
  EXPECT_EQ(text.splits(), (std::vector<Split>{Split::train, Split::validation}));
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

std::vector<std::string> names_of(const Corpus& corpus, Split split) {
  std::vector<std::string> names;
  for (const auto& file : corpus.files(split)) names.push_back(file.name);
  return names;
}

TEST(Corpus, FoldersBelowTheSplitInTheOrderOfTheirNames) {
  TemporaryFolder folder;
  for (const char* name : {"train/b.txt", "train/a/z.txt", "train/a/b/c.TXT", "train/a.txt",
                           "train/x.txt/y.txt", "train/d.Txt.GZ"})
    write_text(folder / name, std::string(name).ends_with("GZ") ? test::gzip("text") : "text");
  const Corpus corpus = Corpus::open(corpus_config("text", folder.path()));
  EXPECT_EQ(names_of(corpus, Split::train),
            (std::vector<std::string>{"train/a.txt", "train/a/b/c.TXT", "train/a/z.txt",
                                      "train/b.txt", "train/d.Txt.GZ", "train/x.txt/y.txt"}));
  EXPECT_EQ(read_all(corpus, Split::train).size(), 6U);
  for (const char* name : {"train/2/b.jsonl", "train/1/a.JSONL"})
    write_text(folder / name, "{\"text\": \"one\"}\n");
  EXPECT_EQ(names_of(Corpus::open(corpus_config("jsonl", folder.path())), Split::train),
            (std::vector<std::string>{"train/1/a.JSONL", "train/2/b.jsonl"}));
}

TEST(Corpus, HiddenFilesAreNeitherReadNorNamed) {
  TemporaryFolder folder;
  write_text(folder / ".hidden" / "root" / "train" / "a.txt", "text");
  const auto train = folder / ".hidden" / "root" / "train";
  write_text(train / "._a.txt", std::string("\0\5\26\7", 4));
  write_text(train / ".draft.txt", "half a draft");
  write_text(train / ".git" / "b.txt", "text");
  write_text(train / "__MACOSX" / "c.txt", "text");
  std::filesystem::create_symlink("user@host.1:2", train / ".#a.txt");
  const Corpus corpus = Corpus::open(corpus_config("text", folder / ".hidden" / "root"));
  EXPECT_EQ(names_of(corpus, Split::train), std::vector<std::string>{"train/a.txt"});
  EXPECT_EQ(corpus.left_out(Split::train), std::vector<std::string>{});
}

TEST(Corpus, WhatIsLeftOutIsNamedWithTheReason) {
  TemporaryFolder folder;
  for (const char* name :
       {"train/a.txt", "train/notes.md", "train/sub/more.pdf", "train/b.txt.zst", "train/c.bz2",
        "train/d.txt.part", "train/e.jsonl", "validation/v.txt", "README.md"})
    write_text(folder / name, "text");
  const Corpus corpus = Corpus::open(corpus_config("text", folder.path()));
  EXPECT_EQ(
      corpus.left_out(Split::train),
      (std::vector<std::string>{
          "2 files packed in a form that is not read (only gzip is): train/b.txt.zst, train/c.bz2",
          "3 files that no pattern takes: train/e.jsonl, train/notes.md, train/sub/more.pdf",
          "1 file unfinished, temporary or kept as a backup: train/d.txt.part"}));
  EXPECT_EQ(corpus.left_out(Split::validation), std::vector<std::string>{});
  for (int i = 0; i < 5; ++i) write_text(folder / "validation" / (std::to_string(i) + ".md"), "x");
  EXPECT_EQ(corpus.left_out(Split::validation).front(),
            "5 files that no pattern takes: validation/0.md, validation/1.md, validation/2.md, …");
}

TEST(Corpus, FilesOfAnotherLayoutAreNamed) {
  TemporaryFolder folder;
  write_text(folder / "train" / "a.jsonl", "{\"text\": \"one\"}\n");
  write_text(folder / "train-00001.jsonl", "{\"text\": \"two\"}\n");
  const Corpus corpus = Corpus::open(corpus_config("jsonl", folder.path()));
  EXPECT_EQ(corpus.left_out(Split::train),
            std::vector<std::string>{"1 file of another layout (json_lines): train-00001.jsonl"});
  const auto summary = corpus.summary(Split::train);
  EXPECT_EQ(summary.corpus, "jsonl");
  EXPECT_EQ(summary.format, "json_lines");
  EXPECT_EQ(summary.patterns,
            "train/*.jsonl, train/*.jsonl.gz, train/*.json.gz (also in folders below)");
  EXPECT_EQ(summary.files, 1);
  EXPECT_EQ(summary.bytes, 16U);

  // Files of all splits in one folder: only those that begin like the split's own are its concern.
  TemporaryFolder flat;
  for (const char* name : {"c4-train.0.json.gz", "c4-train.1.json.gz.part", "c4-train-0.parquet",
                           "c4-validation.0.json.gz", "dataset_info.json", "README.md"})
    write_text(flat / name, test::gzip("{\"text\": \"a\"}\n"));
  EXPECT_EQ(Corpus::open(corpus_config("c4", flat.path())).left_out(Split::train),
            (std::vector<std::string>{
                "1 file of another layout (parquet): c4-train-0.parquet",
                "1 file unfinished, temporary or kept as a backup: c4-train.1.json.gz.part"}));

  // A corpus of flat folders does not look into those below.
  TemporaryFolder books;
  write_text(books / "train" / "1.txt", "text");
  write_text(books / "train" / "more" / "2.txt", "text");
  write_text(books / "metadata.csv", "1,title,1900,link\n");
  const Corpus pg19 = Corpus::open(corpus_config("pg19", books.path()));
  EXPECT_EQ(names_of(pg19, Split::train), std::vector<std::string>{"train/1.txt"});
  EXPECT_EQ(pg19.left_out(Split::train),
            std::vector<std::string>{"1 folder that this corpus does not look into: train/more/"});
}

TEST(Corpus, ALeftOutFileIsWarnedOfOnceASplit) {
  TemporaryFolder folder;
  for (const char* name : {"train/a.txt", "train/b.md", "validation/a.txt"})
    write_text(folder / name, "text");
  const Corpus corpus = Corpus::open(corpus_config("text", folder.path()));
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    (void)corpus.files(Split::train);
    (void)corpus.files(Split::validation);
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_NE(said.find("warning: "), std::string::npos) << said;
  EXPECT_NE(said.find("not read for the train split of corpus 'text': 1 file that no pattern "
                      "takes: train/b.md"),
            std::string::npos)
      << said;
}

TEST(Corpus, WhatStandsThereInsteadIsNamed) {
  TemporaryFolder folder;
  write_text(folder / "train" / "a.json", "{}");
  write_text(folder / "train" / "b.zst", "x");
  expect_error(
      ExitCode::missing_input,
      {"no train files of corpus 'text'", "train/*.txt",
       "1 file that no pattern takes: train/a.json", "1 file packed"},
      [&] { (void)Corpus::open(corpus_config("text", folder.path())).files(Split::train); });
}

TEST(Corpus, RunsAndTokenCachesBelowASplitAreNotData) {
  TemporaryFolder folder;
  const std::string line = "{\"text\": \"one\"}\n";
  write_text(folder / "train" / "a.jsonl", line);
  write_text(folder / "train" / "run" / "config.yaml", "run: {}\n");
  write_text(folder / "train" / "run" / "metrics.jsonl", "{\"event\": \"start\"}\n");
  write_text(folder / "train" / "cache" / "0123456789abcdef" / std::string(64, 'a') / "x.jsonl",
             line);
  const Corpus corpus = Corpus::open(corpus_config("jsonl", folder.path()));
  EXPECT_EQ(names_of(corpus, Split::train), std::vector<std::string>{"train/a.jsonl"});
  EXPECT_EQ(corpus.left_out(Split::train),
            std::vector<std::string>{
                "2 folders written by polysketch: train/cache/0123456789abcdef/, train/run/"});
}

TEST(Corpus, ByteOrderMarksInDescriptionsAndLists) {
  TemporaryFolder folder;
  const std::string mark = "\xEF\xBB\xBF";
  write_text(folder / "train" / "17.txt", mark + "text");
  write_text(folder / "metadata.csv", mark + "17,a title,1900,http://x\r\n");
  const Corpus corpus = Corpus::open(corpus_config("pg19", folder.path()));
  const auto book = corpus.book(corpus.files(Split::train).front());
  ASSERT_TRUE(book);
  EXPECT_EQ(book->title, "a title");
  EXPECT_EQ(book->link, "http://x");
  write_text(folder / "mine.yaml",
             mark + "name: mine\nlayouts:\n  - format: text\n    train: [\"train/*.txt\"]\n");
  EXPECT_EQ(texts_of(corpus_config((folder / "mine.yaml").string(), folder.path()), Split::train),
            std::vector<std::string>{"text"});
  write_text(folder / "metadata.csv", std::string("\xFF\xFE"
                                                  "1\0",
                                                  4));
  expect_error(ExitCode::bad_data, {"metadata.csv", "UTF-16", "iconv"}, [&] {
    const Corpus other = Corpus::open(corpus_config("pg19", folder.path()));
    (void)other.book(other.files(Split::train).front());
  });
  write_text(folder / "mine.yaml", std::string("\xFE\xFF\0n", 4));
  expect_error(ExitCode::config, {"mine.yaml:1:1", "UTF-16 text (big endian", "iconv"}, [&] {
    Corpus::open(corpus_config((folder / "mine.yaml").string(), folder.path()));
  });
}

TEST(Corpus, AnyDepthStandsOnceAndAlone) {
  TemporaryFolder folder;
  for (const char* pattern : {"train/**", "train/**.txt", "**/a/**/*.txt", "a**/x.txt"}) {
    write_text(folder / "mine.yaml", "name: mine\nlayouts:\n  - format: text\n    train: [\"" +
                                         std::string(pattern) + "\"]\n");
    expect_error(ExitCode::config, {"mine.yaml:4:13", "'**'"}, [&] {
      Corpus::open(corpus_config((folder / "mine.yaml").string(), folder.path()));
    });
  }
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
