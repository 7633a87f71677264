// SPDX-License-Identifier: Apache-2.0
#include "support/durable_file.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {
namespace fs = std::filesystem;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

ExitCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line";
    return error.code();
  }
  return ExitCode::done;
}

TEST(DurableFile, AppearsOnlyAtCommit) {
  const test::TemporaryFolder folder;
  DurableFile file(folder / "a");
  file.reserve(1 << 20);
  file.write("hello ", 6);
  file.write("world", 5);
  EXPECT_FALSE(fs::exists(folder / "a"));
  file.commit();
  EXPECT_EQ(test::read_text(folder / "a"), "hello world");
  EXPECT_EQ(file.bytes_written(), 11u);
  EXPECT_EQ(entries(folder.path()), 1u);
  struct stat status {};
  ASSERT_EQ(stat((folder / "a").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20) << "space reserved but not used must be given back";
}

TEST(DurableFile, LeavesNothingWithoutCommit) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", "old");
  {
    DurableFile file(folder / "a");
    file.write("new", 3);
    EXPECT_EQ(entries(folder.path()), 2u);
  }
  EXPECT_EQ(entries(folder.path()), 1u);
  EXPECT_EQ(test::read_text(folder / "a"), "old");
}

TEST(DurableFile, TwoWritersOfOneNameDoNotMix) {
  const test::TemporaryFolder folder;
  DurableFile first(folder / "a"), second(folder / "a");
  first.write("first", 5);
  second.write("second", 6);
  second.commit();
  first.commit();
  EXPECT_EQ(test::read_text(folder / "a"), "first");
}

// A limit on the file size makes write() take a part and then fail, as a full disk does.
TEST(DurableFile, FailureKeepsTheOldFile) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", "old");
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_durably(folder / "a", std::string(5000, 'x'));
    } catch (const UserError& error) {
      _exit(static_cast<int>(error.code()));
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 74);
  EXPECT_EQ(test::read_text(folder / "a"), "old");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(DurableFile, SaysWhyItCannotStart) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "file", "");
  EXPECT_EQ(code_of([&] { DurableFile file(folder / "missing/a"); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of([&] { DurableFile file(folder / "file/a"); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of([&] { polysketch::create_directories(folder / "file/a"); }),
            ExitCode::cannot_create);
  EXPECT_EQ(code_of([&] { polysketch::create_directories(folder / "file"); }),
            ExitCode::cannot_create);
  EXPECT_EQ(code_of([&] { polysketch::create_directories(folder / "x/y/z"); }), ExitCode::done);
  EXPECT_TRUE(fs::is_directory(folder / "x/y/z"));
}

// In a child, so that the superuser can give up being refused nothing.
TEST(DurableFile, RefusalsGet77) {
  const test::TemporaryFolder folder;
  fs::create_directory(folder / "locked");
  test::write_text(folder / "secret", "x");
  fs::permissions(folder / "secret", fs::perms::none);
  fs::permissions(folder / "locked",
                  fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
  fs::permissions(folder.path(), fs::perms::owner_all | fs::perms::others_exec);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(10);
    if (code_of([&] { DurableFile file(folder / "locked/a"); }) != ExitCode::permission) _exit(1);
    if (code_of([&] { polysketch::create_directories(folder / "locked/a"); }) !=
        ExitCode::permission)
      _exit(2);
    if (code_of([&] { read_file(folder / "secret"); }) != ExitCode::permission) _exit(3);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(DurableFile, OverAFolderFails) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "a/b");
  EXPECT_EQ(code_of([&] { write_file_durably(folder / "a", "x"); }), ExitCode::cannot_create);
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(ReadFile, WholeAndLimits) {
  const test::TemporaryFolder folder;
  for (const size_t size : {0, 1, 4095, 4096, 8192, 100'000}) {
    const std::string text(size, 'y');
    test::write_text(folder / "a", text);
    EXPECT_EQ(read_file(folder / "a"), text);
    EXPECT_EQ(read_file(folder / "a", size), text);
    if (size > 0) {
      EXPECT_EQ(code_of([&] { read_file(folder / "a", size - 1); }), ExitCode::bad_data);
    }
  }
  EXPECT_EQ(code_of([&] { read_file(folder / "none"); }), ExitCode::missing_input);
  EXPECT_EQ(code_of([&] { read_file(folder.path()); }), ExitCode::io);
  EXPECT_EQ(code_of([&] { read_file("/dev/zero", 1 << 20); }), ExitCode::bad_data)
      << "endless files hit the limit";
}

TEST(Rename, FoldersAndMissingSources) {
  const test::TemporaryFolder folder;
  fs::create_directory(folder / "a");
  test::write_text(folder / "a/x", "1");
  fs::create_directory(folder / "to");
  rename_durably(folder / "a", folder / "to/b");
  EXPECT_EQ(test::read_text(folder / "to/b/x"), "1");
  EXPECT_EQ(code_of([&] { rename_durably(folder / "none", folder / "c"); }),
            ExitCode::missing_input);
  EXPECT_EQ(code_of([&] { rename_durably(folder / "to", folder / "missing/c"); }),
            ExitCode::cannot_create);
}

}  // namespace
}  // namespace polysketch
