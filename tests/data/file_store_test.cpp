// SPDX-License-Identifier: Apache-2.0
#include "data/file_store.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "data/corpus_files.hpp"
#include "data/file_pattern.hpp"

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

TEST(Pattern, AnyNumberOfFolders) {
  EXPECT_TRUE(matches_pattern("train/**/*.txt", "train/a.txt"));
  EXPECT_TRUE(matches_pattern("train/**/*.txt", "train/deep/er/a.txt"));
  EXPECT_TRUE(matches_pattern("**/*.txt", "a.txt"));
  EXPECT_TRUE(matches_pattern("a/**/b/*.txt", "a/x/b/b/c.txt"));
  EXPECT_FALSE(matches_pattern("train/**/*.txt", "train.txt"));
  EXPECT_FALSE(matches_pattern("train/**/*.txt", "test/train/a.txt"));
  EXPECT_FALSE(matches_pattern("a/**/b/*.txt", "a/x/c.txt"));
  EXPECT_EQ(shared_folder_of("train/**/*.txt", "train/deep/a.txt"), "train");
  EXPECT_EQ(shared_folder_of("**/*.txt", "deep/a.txt"), "");
  EXPECT_EQ(shared_folder_of("*/*/a-*.txt", "en/1.0/a-1.txt"), "en/1.0");
}

TEST(Pattern, HiddenNamesAreNotTakenByWildcards) {
  for (const char* name : {"train/.a.txt", "train/._a.txt", "train/.git/a.txt", ".x/train/a.txt",
                           "train/__MACOSX/a.txt", "train/lost+found/a.txt"}) {
    EXPECT_FALSE(matches_pattern("train/**/*.txt", name)) << name;
    EXPECT_FALSE(matches_pattern("train/*/?a.txt", name)) << name;
    EXPECT_FALSE(matches_pattern("*/train/*.txt", name)) << name;
  }
  EXPECT_TRUE(matches_pattern(".mine/*.txt", ".mine/a.txt")) << "spelt out";
}

TEST(Pattern, ExtensionsAreComparedWithoutRegardToCase) {
  EXPECT_TRUE(matches_pattern("train/*.txt", "train/A.TXT"));
  EXPECT_TRUE(matches_pattern("*.json.gz", "a.Json.GZ"));
  EXPECT_TRUE(matches_pattern("c4-train.*.json.gz", "c4-train.0.JSON.gz"));
  EXPECT_TRUE(matches_pattern("metadata.csv", "metadata.CSV"));
  EXPECT_FALSE(matches_pattern("train/*.txt", "Train/a.txt"));
  EXPECT_FALSE(matches_pattern("metadata.csv", "Metadata.csv"));
  EXPECT_FALSE(matches_pattern("c4-train.*.json.gz", "C4-train.0.json.gz"));
}

TEST(Pattern, AWildcardAtTheEndTakesNoUnfinishedOrPackedFile) {
  EXPECT_TRUE(matches_pattern("c4.tfrecord-*", "c4.tfrecord-00000-of-00001"));
  EXPECT_TRUE(matches_pattern("c4.tfrecord-*", "c4.tfrecord-00000-of-00001.gz"));
  for (const char* tail :
       {".part", ".PART", ".zst", ".bz2", ".xz", ".incomplete", ".aria2", "~", ".tmp", ".md5"})
    EXPECT_FALSE(matches_pattern("c4.tfrecord-*", std::string("c4.tfrecord-0-of-1") + tail));
  EXPECT_TRUE(matches_pattern("*.tmp", "a.tmp")) << "spelt out";
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

TEST(FileStore, LinksLeadWhereverTheUserMadeThemLead) {
  // As the cache of a model hub: snapshots of links to files with hashes for names.
  TemporaryFolder folder;
  write_text(folder / "hub" / "blobs" / "f00", "first");
  write_text(folder / "hub" / "blobs" / "f01", "second");
  const auto snapshot = folder / "hub" / "snapshots" / "rev";
  fs::create_directories(snapshot / "train");
  fs::create_symlink("../../../blobs/f00", snapshot / "train" / "1.txt");
  fs::create_symlink(folder / "hub" / "blobs" / "f01", snapshot / "train" / "2.txt");
  const std::vector<std::string> wanted = {"first", "second"};
  EXPECT_EQ(test::texts_of(corpus_config("text", snapshot), Split::train), wanted);
  // A root that is a link, a split that is one, a folder below it.
  fs::create_directory_symlink(snapshot, folder / "root");
  EXPECT_EQ(test::texts_of(corpus_config("text", folder / "root"), Split::train), wanted);
  fs::create_directories(folder / "split");
  fs::create_directory_symlink("../root/train", folder / "split" / "train");
  EXPECT_EQ(test::texts_of(corpus_config("text", folder / "split"), Split::train), wanted);
  fs::create_directories(folder / "below" / "train");
  fs::create_directory_symlink(snapshot / "train", folder / "below" / "train" / "part");
  EXPECT_EQ(test::texts_of(corpus_config("text", folder / "below"), Split::train), wanted);
  // The folder above does not do, but names the one that does.
  expect_error(ExitCode::missing_input, {"no train files", "hub/snapshots/rev"},
               [&] { test::texts_of(corpus_config("text", folder / "hub"), Split::train); });
}

TEST(FileStore, ALinkIsKnownByWhatItLeadsTo) {
  TemporaryFolder folder;
  write_text(folder / "blobs" / "a", "one");
  write_text(folder / "blobs" / "b", "two");
  fs::create_directories(folder / "root" / "train");
  const auto link = folder / "root" / "train" / "x.txt";
  fs::create_symlink("../../blobs/a", link);
  auto config = corpus_config("text", folder / "root");
  config.cache = (folder / "cache").string();
  for (const char* blob : {"a", "b"})  // so that hashes are remembered
    fs::last_write_time(folder / "blobs" / blob,
                        fs::file_time_type::clock::now() - std::chrono::hours(1));
  const Corpus corpus = Corpus::open(config);
  const auto hash = [&] { return corpus.content_hash(corpus.files(Split::train).front()); };
  EXPECT_EQ(hash(), sha256_hex("one"));
  fs::remove(link);
  fs::create_symlink("../../blobs/b", link);
  EXPECT_EQ(hash(), sha256_hex("two"));
  write_text(folder / "blobs" / "b", "2");
  EXPECT_EQ(hash(), sha256_hex("2"));
  EXPECT_EQ(corpus.files(Split::train).front().bytes, 1U);
}

class Links : public testing::Test {
 protected:
  Links() { write_text(folder_ / "train" / "good.txt", "text"); }
  void expect_refused(ExitCode code, const std::vector<std::string>& parts) const {
    expect_error(code, parts,
                 [&] { test::texts_of(corpus_config("text", folder_.path()), Split::train); });
  }
  TemporaryFolder folder_;
};

TEST_F(Links, ThatLeadNowhereNameWhatIsMissing) {
  fs::create_symlink("../blobs/f00", folder_ / "train" / "a.txt");
  expect_refused(ExitCode::missing_input,
                 {"train/a.txt: a symbolic link to '../blobs/f00', which does not exist"});
  fs::remove_all(folder_ / "train");
  fs::create_symlink("elsewhere", folder_ / "train");
  expect_refused(ExitCode::missing_input,
                 {"train: a symbolic link to 'elsewhere', which does not exist"});
  fs::create_symlink("nowhere", folder_ / "root");
  expect_error(ExitCode::missing_input, {"root: a symbolic link to 'nowhere'"},
               [&] { Corpus::open(corpus_config("text", folder_ / "root")); });
}

TEST_F(Links, InACircle) {
  fs::create_symlink("b.txt", folder_ / "train" / "a.txt");
  fs::create_symlink("a.txt", folder_ / "train" / "b.txt");
  expect_refused(ExitCode::missing_input, {"a.txt: symbolic links that lead round in a circle"});
  fs::remove(folder_ / "train" / "a.txt");
  fs::remove(folder_ / "train" / "b.txt");
  for (const char* target : {".", ".."}) {
    fs::create_directories(folder_ / "train" / "sub");
    fs::create_directory_symlink(target, folder_ / "train" / "sub" / "again");
    expect_refused(ExitCode::bad_data, {"train/sub/again: ", "leads back to a folder above it"});
    fs::remove_all(folder_ / "train" / "sub");
  }
  fs::create_symlink("root", folder_ / "root");
  expect_error(ExitCode::missing_input, {"root: symbolic links that lead round in a circle"},
               [&] { Corpus::open(corpus_config("text", folder_ / "root")); });
}

TEST_F(Links, ToWhatIsNoFile) {
  const auto a = folder_ / "train" / "a.txt";
  fs::create_directories(folder_ / "elsewhere");
  for (const char* target : {"../elsewhere", "."}) {
    fs::create_directory_symlink(target, a);
    expect_refused(ExitCode::bad_data, {"a.txt: is a link to a folder, not a regular file"});
    fs::remove(a);
  }
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  fs::create_symlink("../pipe", a);
  expect_refused(ExitCode::bad_data, {"a.txt: is a link to a pipe, not a regular file"});
  fs::remove(a);
  fs::create_symlink("/dev/null", a);
  expect_refused(ExitCode::bad_data, {"a.txt: is a link to a device, not a regular file"});
  fs::remove(a);
  fs::create_symlink("/proc/self/exe", a);
  try {
    test::texts_of(corpus_config("text", folder_.path()), Split::train);
  } catch (const UserError& error) {  // kernels without openat2 follow it, and find no text
    EXPECT_EQ(error.code(), ExitCode::bad_data);
  }
}

TEST(FileStore, PipesSocketsAndDevicesAreRefusedWithoutWaiting) {
  TemporaryFolder folder;
  fs::create_directories(folder / "train");
  ASSERT_EQ(mkfifo((folder / "train" / "a.txt").c_str(), 0600), 0);
  expect_error(ExitCode::bad_data, {"a.txt", "is a pipe, not a regular file"},
               [&] { test::texts_of(corpus_config("text", folder.path()), Split::train); });
  fs::remove(folder / "train" / "a.txt");
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = (folder / "train" / "a.txt").string();
  ASSERT_LT(name.size(), sizeof address.sun_path);
  name.copy(address.sun_path, name.size());
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  expect_error(ExitCode::bad_data, {"a.txt", "is a socket, not a regular file"},
               [&] { test::texts_of(corpus_config("text", folder.path()), Split::train); });
  close(fd);
}

TEST(FileStore, UnknownSchemesAreNamed) {
  expect_error(ExitCode::config, {"http", "s3://"},
               [] { FileStore::open("http://example.org/x"); });
}

}  // namespace
}  // namespace polysketch
