// SPDX-License-Identifier: Apache-2.0
#include "data/corpus_identity.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "corpus_files.hpp"

namespace polysketch::test {
namespace {

using testing::HasSubstr;

class Identity : public testing::Test {
 protected:
  Identity() {
    write_text(root_ / "train/a.txt", "first text");
    write_text(root_ / "train/b.txt", "second text");
    config_ = corpus_config("text", root_.path());
    config_.cache = (root_ / "cache").string();
  }
  /// As a run notes it that has read both files.
  CorpusIdentity noted() const {
    const Corpus corpus = Corpus::open(config_);
    auto identity = CorpusIdentity::of(corpus, Split::train);
    for (const auto& file : corpus.files(Split::train)) (void)corpus.content_hash(file);
    identity.note(corpus.known_hashes());
    return CorpusIdentity::from_json(identity.to_json());
  }
  TemporaryFolder root_;
  DataConfig config_;
};

TEST_F(Identity, OfTheSameFilesIsTheSameWhereverTheyLie) {
  const auto before = noted();
  EXPECT_EQ(before.difference(noted()), "");
  const TemporaryFolder elsewhere;
  std::filesystem::copy(root_ / "train", elsewhere / "train");
  config_.root = elsewhere.path().string();
  EXPECT_EQ(before.difference(noted()), "");
}

TEST_F(Identity, TellsEveryKindOfDifference) {
  const auto before = noted();
  write_text(root_ / "train/c.txt", "third text");
  EXPECT_EQ(before.difference(noted()), "1 new (train/c.txt)");
  std::filesystem::remove(root_ / "train/a.txt");
  EXPECT_EQ(before.difference(noted()), "1 new (train/c.txt), 1 gone (train/a.txt)");
  write_text(root_ / "train/b.txt", "second text, longer");
  EXPECT_THAT(before.difference(noted()),
              HasSubstr("1 of another size (train/b.txt: 19 bytes, was 11)"));
  write_text(root_ / "train/b.txt", "second tent");
  EXPECT_THAT(before.difference(noted()), HasSubstr("1 of another content (train/b.txt)"));
}

TEST_F(Identity, ContentCountsOnlyWhereItIsKnown) {
  const auto before = noted();
  write_text(root_ / "train/b.txt", "second tent");
  EXPECT_EQ(before.difference(CorpusIdentity::of(Corpus::open(config_), Split::train)), "");
}

TEST_F(Identity, AFileThatWasRewrittenIsFoundWhenItIsRead) {
  const auto before = noted();
  write_text(root_ / "train/b.txt", "second tent");
  Corpus corpus = Corpus::open(config_);
  corpus.expect_hashes(before.hashes());
  const auto files = corpus.files(Split::train);
  EXPECT_EQ(corpus.content_hash(files[0]).size(), 64u);
  expect_error(ExitCode::bad_data, {"train/b.txt", "not what it was", "--allow-data-change"},
               [&] { (void)corpus.content_hash(files[1]); });
}

TEST_F(Identity, AFileThatCouldNotBeReadMayBeMendedAndCountsAsBefore) {
  write_text(root_ / "train/b.txt", std::string("second\0text", 11));
  const auto read_it = [&](const Corpus& corpus) {
    Document document;
    const auto reader = corpus.read(corpus.files(Split::train)[1]);
    while (reader->next(document)) {
    }
  };
  const Corpus broken = Corpus::open(config_);
  expect_error(ExitCode::bad_data, {"b.txt", "NUL"}, [&] { read_it(broken); });
  EXPECT_EQ(broken.unreadable(), std::set<std::string>{"train/b.txt"});
  auto before = noted();
  EXPECT_TRUE(before.note_unreadable(broken.unreadable()));
  EXPECT_FALSE(before.note_unreadable(broken.unreadable())) << "no news";
  before = CorpusIdentity::from_json(before.to_json());
  EXPECT_EQ(before.unreadable(), std::vector<std::string>{"train/b.txt"});
  EXPECT_FALSE(before.hashes().contains("train/b.txt"));

  write_text(root_ / "train/b.txt", "second text, mended");
  auto after = noted();
  EXPECT_EQ(before.difference(after), "");
  Corpus corpus = Corpus::open(config_);
  after.continue_from(before);
  EXPECT_EQ(after.counted(), (std::map<std::string, uint64_t>{{"train/b.txt", 11}}));
  corpus.count_as(after.counted());
  EXPECT_EQ(corpus.files(Split::train)[1].bytes, 11u);
  (void)corpus.content_hash(corpus.files(Split::train)[1]);
  after.note(corpus.known_hashes());

  // The next checkpoint knows it as it is now, and what it counts as.
  after = CorpusIdentity::from_json(after.to_json());
  EXPECT_TRUE(after.unreadable().empty());
  EXPECT_EQ(after.counted(), (std::map<std::string, uint64_t>{{"train/b.txt", 11}}));
  EXPECT_EQ(after.difference(noted()), "");
  write_text(root_ / "train/b.txt", "second text, mangled");
  EXPECT_THAT(after.difference(noted()), HasSubstr("train/b.txt: 20 bytes, was 19"));
}

TEST_F(Identity, NamesThatAreNotUtf8AreKept) {
  write_text(root_ / "train/\xff.txt", "text");
  const auto before = noted();
  EXPECT_TRUE(before.files.contains("train/%FF.txt"));
  EXPECT_EQ(before.difference(noted()), "");
}

TEST_F(Identity, ATextThatIsNoListIsRefused) {
  for (const char* text : {R"([1])", R"(["12"])", R"(["x - a.txt"])", R"(["12 -"])"}) {
    EXPECT_EQ(error_of([&] { CorpusIdentity::from_json(nlohmann::json::parse(text)); }).code(),
              ExitCode::no_checkpoint)
        << text;
  }
}

TEST_F(Identity, CheckSplitFindsWhatWouldEndARunLater) {
  const auto check = [&] { check_split(config_, Split::validation); };
  expect_error(ExitCode::missing_input, {"validation"}, check);
  write_text(root_ / "validation/v.txt", "");
  expect_error(ExitCode::bad_data, {"validation split holds no text"}, check);
  write_text(root_ / "validation/w.txt", std::string("ab\0c", 4));
  expect_error(ExitCode::bad_data, {"w.txt", "NUL"}, check);
  config_.on_error = OnError::skip;
  config_.max_bad_fraction = 0.6;
  write_text(root_ / "validation/x.txt", "some text");
  check();
}

}  // namespace
}  // namespace polysketch::test
