// SPDX-License-Identifier: Apache-2.0
// Everything happens in a folder of the test's own: never in /dev.
#include "support/output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <thread>

#include "helpers/test_helpers.hpp"
#include "support/error.hpp"
#include "support/standard_streams.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::read_text;
using test::write_text;
using testing::HasSubstr;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

struct stat status_of(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

/// Code and text of the refusal, which is one line.
std::pair<ExitCode, std::string> refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return {error.code(), error.what()};
  }
  return {ExitCode::done, ""};
}

void put(const fs::path& name, const std::string& text) {
  OutputFile("--output", name.string()).write(text);
}

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override { signal(SIGPIPE, SIG_IGN); }
  test::TemporaryFolder folder_;
};

TEST_F(OutputFileTest, ARegularFileIsReplacedAndKeepsItsPermissions) {
  const fs::path file = folder_ / "page.html";
  write_text(file, "old");
  ASSERT_EQ(::chmod(file.c_str(), 0640), 0);
  const int reader = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  put(file, "new");
  EXPECT_EQ(read_text(file), "new");
  EXPECT_EQ(status_of(file).st_mode & 07777, 0640u);
  char old[4] = "";
  EXPECT_EQ(::read(reader, old, 3), 3);
  EXPECT_STREQ(old, "old") << "who has it open keeps the whole old one";
  ::close(reader);
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(OutputFileTest, ANewFileHasThePermissionsThatTheUmaskLeaves) {
  const mode_t before = ::umask(0007);
  put(folder_ / "new", "x");
  ::umask(before);
  EXPECT_EQ(status_of(folder_ / "new").st_mode & 0777, 0660u);
}

TEST_F(OutputFileTest, LinksStayAndWhatTheyLeadToIsReplaced) {
  fs::create_directories(folder_ / "other");
  write_text(folder_ / "other/target", "old");
  ASSERT_EQ(::chmod((folder_ / "other/target").c_str(), 0600), 0);
  fs::create_symlink("target", folder_ / "other/near");         // relative to its own folder
  fs::create_symlink(folder_ / "other/near", folder_ / "far");  // absolute
  fs::create_symlink("other", folder_ / "folder");
  fs::create_symlink("../far", folder_ / "other/back");  // a chain over two folders
  for (const char* name : {"other/near", "far", "folder/near", "folder/back"}) {
    SCOPED_TRACE(name);
    const OutputFile output("--output", (folder_ / name).string());
    EXPECT_TRUE(output.is_regular());
    EXPECT_THAT(output.place(), testing::EndsWith("/target"));
    output.write(name);
    EXPECT_EQ(read_text(folder_ / "other/target"), name);
    EXPECT_EQ(status_of(folder_ / "other/target").st_mode & 07777, 0600u);
  }
  for (const char* name : {"other/near", "far", "folder", "other/back"})
    EXPECT_TRUE(fs::is_symlink(folder_ / name)) << name;
  EXPECT_EQ(entries(folder_ / "other"), 3u);
}

TEST_F(OutputFileTest, ALinkToNothingMakesWhatItLeadsTo) {
  fs::create_directories(folder_ / "other");
  fs::create_symlink("other/made", folder_ / "link");
  put(folder_ / "link", "text");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_text(folder_ / "other/made"), "text");
  fs::create_symlink("missing/made", folder_ / "astray");
  const auto [code, text] = refusal_of([&] { put(folder_ / "astray", "x"); });
  EXPECT_EQ(code, ExitCode::cannot_create);
  EXPECT_THAT(text, testing::AllOf(HasSubstr("missing does not exist"), HasSubstr("astray")));
}

TEST_F(OutputFileTest, ADeviceIsWrittenInto) {
  const fs::path null = folder_ / "null", full = folder_ / "full";
  if (::mknod(null.c_str(), S_IFCHR | 0666, makedev(1, 3)) != 0 ||
      ::mknod(full.c_str(), S_IFCHR | 0666, makedev(1, 7)) != 0)
    GTEST_SKIP() << "device nodes cannot be made here: " << std::strerror(errno);
  fs::create_symlink("null", folder_ / "link");
  for (const fs::path& name : {null, folder_ / "link"}) {
    const OutputFile output("--output", name.string());
    EXPECT_FALSE(output.is_regular());
    EXPECT_FALSE(output.is_standard_output());
    output.write("text");
    EXPECT_TRUE(S_ISCHR(status_of(null).st_mode));
  }
  const auto [code, text] = refusal_of([&] { put(full, "text"); });
  EXPECT_EQ(code, ExitCode::io);
  EXPECT_THAT(text, HasSubstr("No space left"));
  EXPECT_TRUE(S_ISCHR(status_of(full).st_mode));
  EXPECT_EQ(entries(folder_.path()), 3u);
}

TEST_F(OutputFileTest, APipeGetsTheText) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string text(200'000, 'x');  // more than a pipe holds
  std::string got;
  std::thread reader([&] { got = read_text(pipe); });
  put(pipe, text);
  reader.join();
  EXPECT_TRUE(got == text);
  EXPECT_TRUE(S_ISFIFO(status_of(pipe).st_mode));
}

TEST_F(OutputFileTest, APipeWhoseReaderGoesAwayIsNoMistake) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread reader([&] { ::close(::open(pipe.c_str(), O_RDONLY)); });
  EXPECT_THROW(put(pipe, std::string(200'000, 'x')), ReaderGone);
  reader.join();
}

TEST_F(OutputFileTest, ASocketGetsTheText) {
  const std::string name = (folder_ / "socket").string();
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(name.size(), sizeof address.sun_path);
  std::copy(name.begin(), name.end(), std::begin(address.sun_path));
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  put(name, "text");
  const int from = ::accept(listener, nullptr, nullptr);
  char got[5] = "";
  EXPECT_EQ(::read(from, got, 4), 4);
  EXPECT_STREQ(got, "text");
  ::close(from);
  ::close(listener);
  EXPECT_TRUE(S_ISSOCK(status_of(name).st_mode));
  const auto [code, text] = refusal_of([&] { put(name, "x"); });
  EXPECT_EQ(code, ExitCode::cannot_create);
  EXPECT_THAT(text, HasSubstr("Connection refused"));
}

TEST_F(OutputFileTest, StandardOutputByAnyName) {
  fs::create_symlink("/proc/self/fd/1", folder_ / "stdout");
  fs::create_symlink("stdout", folder_ / "link");
  for (const std::string& name :
       {std::string("-"), (folder_ / "stdout").string(), (folder_ / "link").string(),
        std::string("/proc/self/fd/1"), std::string("/proc/thread-self/fd/1")}) {
    SCOPED_TRACE(name);
    testing::internal::CaptureStdout();
    const OutputFile output("--output", name);
    const bool standard = output.is_standard_output();
    print("before,");
    output.write("text,");
    print("after");
    EXPECT_EQ(testing::internal::GetCapturedStdout(), "before,text,after");
    EXPECT_TRUE(standard);
    EXPECT_EQ(output.place(), "standard output");
    EXPECT_FALSE(output.is_regular());
  }
  EXPECT_TRUE(fs::is_symlink(folder_ / "stdout"));
  put(folder_ / "./-", "a file of this name");
  EXPECT_EQ(read_text(folder_ / "-"), "a file of this name");
}

TEST_F(OutputFileTest, AnOpenDescriptorIsWrittenWhereItStands) {
  const fs::path file = folder_ / "log";
  const int open = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::write(open, "one ", 4), 4);
  put(fmt::format("/proc/self/fd/{}", open), "two");
  ASSERT_EQ(::write(open, " three", 6), 6);
  EXPECT_EQ(read_text(file), "one two three");
  // Through another process: at the end of what it has there.
  const pid_t child = fork();
  if (child == 0) {
    const std::string theirs = fmt::format("/proc/{}/fd/{}", ::getppid(), open);
    ::close(open);
    put(theirs, " four");
    _exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_text(file), "one two three four");
  ::close(open);
  EXPECT_EQ(entries(folder_.path()), 1u);
}

TEST_F(OutputFileTest, SaysWhatIsWrong) {
  write_text(folder_ / "file", "kept");
  fs::create_directory(folder_ / "folder");
  fs::create_symlink("two", folder_ / "one");
  fs::create_symlink("one", folder_ / "two");
  fs::create_symlink("folder", folder_ / "to-folder");
  const auto check = [&](const std::string& name, ExitCode code, const std::string& part) {
    const auto [got, text] = refusal_of([&] { OutputFile("--output", name); });
    EXPECT_EQ(got, code) << name;
    EXPECT_THAT(text, testing::AllOf(testing::StartsWith("--output"), HasSubstr(part))) << name;
  };
  const auto in = [&](const std::string& name) { return (folder_ / name).string(); };
  check("", ExitCode::usage, "want the name of a file");
  check(in("folder"), ExitCode::cannot_create, "is a folder");
  check(in("folder") + "/", ExitCode::cannot_create, "is a folder");
  check(in("to-folder"), ExitCode::cannot_create, "is a folder");
  check(in("new") + "/", ExitCode::cannot_create, "is a folder");
  check(in("missing/page"), ExitCode::cannot_create, "missing does not exist: make it first");
  check(in("file/page"), ExitCode::cannot_create, "Not a directory");
  check(in("one"), ExitCode::cannot_create, "Too many levels of symbolic links");
  check(in(std::string(300, 'x')), ExitCode::cannot_create, "File name too long");
  EXPECT_EQ(read_text(folder_ / "file"), "kept");
  EXPECT_EQ(entries(folder_.path()), 5u);
}

TEST_F(OutputFileTest, ToLookLeavesNothing) {
  write_text(folder_ / "old", "old");
  for (const char* name : {"old", "new"}) OutputFile("--output", (folder_ / name).string());
  EXPECT_EQ(entries(folder_.path()), 1u);
  EXPECT_EQ(read_text(folder_ / "old"), "old");
}

TEST_F(OutputFileTest, ANameAsLongAsNamesMayBe) {
  const fs::path name = folder_ / std::string(255, 'n');
  put(name, "text");
  EXPECT_EQ(read_text(name), "text");
  EXPECT_EQ(entries(folder_.path()), 1u);
}

/// The superuser is refused nothing, so somebody else tries.
TEST_F(OutputFileTest, WhatMayNotBeWrittenStays) {
  write_text(folder_ / "mine", "mine");
  write_text(folder_ / "closed/open", "old");
  fs::permissions(folder_ / "mine", fs::perms::owner_read | fs::perms::others_read);
  fs::permissions(folder_ / "closed/open", fs::perms::all);
  fs::permissions(folder_ / "closed", fs::perms::owner_read | fs::perms::owner_exec |
                                          fs::perms::others_read | fs::perms::others_exec);
  fs::permissions(folder_.path(), fs::perms::all);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
      _exit(9);
    if (refusal_of([&] { put(folder_ / "mine", "x"); }).first != ExitCode::permission) _exit(1);
    if (refusal_of([&] { put(folder_ / "closed/new", "x"); }).first != ExitCode::permission)
      _exit(2);
    // No new file may be made in the folder, but this one may be written.
    const OutputFile open("--output", (folder_ / "closed/open").string());
    if (!open.is_regular()) _exit(3);
    open.write("new");
    _exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_text(folder_ / "mine"), "mine");
  EXPECT_EQ(read_text(folder_ / "closed/open"), "new");
}

TEST_F(OutputFileTest, AFileThatIsMountedOnItsOwnIsWrittenInto) {
  write_text(folder_ / "outside", "a long old text");
  write_text(folder_ / "mounted", "");
  constexpr int no_mount = 99;
  const pid_t child = fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount((folder_ / "outside").c_str(), (folder_ / "mounted").c_str(), nullptr, MS_BIND,
                nullptr) != 0)
      _exit(no_mount);
    put(folder_ / "mounted", "new");
    _exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == no_mount) GTEST_SKIP() << "nothing can be mounted here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_text(folder_ / "outside"), "new");
  EXPECT_EQ(entries(folder_.path()), 2u);
}

}  // namespace
}  // namespace polysketch
