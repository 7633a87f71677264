// SPDX-License-Identifier: Apache-2.0
#include "data/file_store.hpp"

#include <sys/stat.h>

#include "data/corpus_files.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::corpus_config;
using test::expect_error;
using test::TemporaryFolder;
using test::write_text;

TEST(Pattern, WildcardsStayWithinAComponent) {
  EXPECT_TRUE(matches_pattern("train/*.txt", "train/a.txt"));
  EXPECT_TRUE(matches_pattern("c4-train.*.json.gz", "c4-train.00000-of-01024.json.gz"));
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(matches_pattern("a*b*c", "axxbyybzc"));
  EXPECT_FALSE(matches_pattern("train/*.txt", "train/deep/a.txt"));
  EXPECT_FALSE(matches_pattern("train/*.txt", "train/a.txt.gz"));
  EXPECT_FALSE(matches_pattern("a?c", "a/c"));
  EXPECT_FALSE(matches_pattern("abc", "ab"));
}

TEST(FileStore, NamesThatLeaveTheRootAreNeverOpened) {
  TemporaryFolder folder;
  write_text(folder / "secret.txt", "secret");
  write_text(folder / "root" / "train" / "a.txt", "text");
  const Corpus corpus = Corpus::open(corpus_config("text", folder / "root"));
  for (const std::string name : {"../secret.txt", "train/../../secret.txt", "/etc/passwd",
                                 "train//a.txt", "./train/a.txt", ""}) {
    expect_error(ExitCode::bad_data, {"not a name inside the corpus folder"}, [&] {
      (void)corpus.read({name, name, 1});
    });
  }
}

TEST(FileStore, LinksOutOfTheRootAreRefusedAndLinksInsideAreNot) {
  TemporaryFolder folder;
  write_text(folder / "secret.txt", "secret");
  write_text(folder / "root" / "train" / "a.txt", "text");
  fs::create_symlink("a.txt", folder / "root" / "train" / "b.txt");
  EXPECT_EQ(test::texts_of(corpus_config("text", folder / "root"), Split::train).size(), 2U);
  fs::create_symlink("../../secret.txt", folder / "root" / "train" / "c.txt");
  expect_error(ExitCode::bad_data, {"c.txt", "out of the corpus folder"},
               [&] { test::texts_of(corpus_config("text", folder / "root"), Split::train); });
  fs::remove(folder / "root" / "train" / "c.txt");
  fs::create_directories(folder / "outside");
  write_text(folder / "outside" / "x.txt", "secret");
  fs::create_directory_symlink("../outside", folder / "root" / "validation");
  expect_error(ExitCode::bad_data, {"x.txt", "out of the corpus folder"},
               [&] { test::texts_of(corpus_config("text", folder / "root"), Split::validation); });
}

TEST(FileStore, PipesAndDevicesAreRefusedWithoutWaiting) {
  TemporaryFolder folder;
  fs::create_directories(folder / "train");
  ASSERT_EQ(mkfifo((folder / "train" / "a.txt").c_str(), 0600), 0);
  expect_error(ExitCode::bad_data, {"a.txt", "not a regular file"},
               [&] { test::texts_of(corpus_config("text", folder.path()), Split::train); });
}

TEST(FileStore, UnknownSchemesAreNamed) {
  expect_error(ExitCode::config, {"http", "s3://"},
               [] { FileStore::open("http://example.org/x"); });
}

}  // namespace
}  // namespace polysketch
