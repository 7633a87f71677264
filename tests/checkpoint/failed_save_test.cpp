// SPDX-License-Identifier: Apache-2.0
// Faults 7 and 8: saves that fail. The disk is a small file system in memory, mounted where only a
// child process sees it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/group_fixture.hpp"
#include "checkpoint/peers_fixture.hpp"
#include "checkpoint/save_attempts.hpp"
#include "helpers/test_helpers.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::GroupData;
using test::keep;
using test::save_group;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

constexpr int no_mount = 99;

/// Runs `body` in a child process for which `folder` is a file system of `kib` KiB. False, with the
/// test marked as skipped, where the machine does not allow that. Failures of the child's
/// expectations fail the test.
bool on_small_disk(const fs::path& folder, int kib, const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    const uid_t user = getuid();
    const gid_t group = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) _exit(no_mount);
    try {
      test::write_text("/proc/self/setgroups", "deny");
      test::write_text("/proc/self/uid_map", fmt::format("0 {} 1", user));
      test::write_text("/proc/self/gid_map", fmt::format("0 {} 1", group));
    } catch (const std::exception&) {
      _exit(no_mount);
    }
    if (mount("none", folder.c_str(), "tmpfs", 0, fmt::format("size={}k", kib).c_str()) != 0)
      _exit(no_mount);
    body();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == no_mount) return false;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "what failed stands above";
  return true;
}

constexpr const char* no_small_disk =
    "this machine does not let a process mount a small file system";

size_t entries(const fs::path& folder) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) count += entry.path().empty() ? 0 : 1;
  return count;
}

std::string error_of(const std::function<void()>& action, ExitCode code) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// Takes all space but about `left` KiB.
void fill(const fs::path& folder, int64_t left) {
  const auto free = static_cast<int64_t>(fs::space(folder).available) / 1024;
  test::write_text(folder / "filler",
                   std::string(static_cast<size_t>(std::max<int64_t>(0, free - left)) * 1024, 'x'));
}

TEST(FullDisk, ShowsBeforeAnythingIsWritten) {
  const TemporaryFolder run;
  for (const int64_t world : {1, 3}) {
    const bool could = on_small_disk(run.path(), 1000, [&] {
      const auto endings = test::run_threads(world, [&](const Peers& peers) {
        CheckpointStore store(run.path(), keep(2), peers);
        save_group(store, 10);
        const GroupData large(20, 200);
        store.save(20, large.groups(), large.state());
      });
      for (const auto& ending : endings) {
        EXPECT_EQ(ending.code, static_cast<int>(ExitCode::io));
        EXPECT_THAT(ending.error, AllOf(HasSubstr("no space for a checkpoint"),
                                        HasSubstr("MiB needed"), HasSubstr("KiB free")));
      }
      EXPECT_EQ(entries(run / "checkpoints"), 1U);
      EXPECT_EQ(CheckpointStore(run.path(), keep(2)).newest_valid()->step, 10);
    });
    if (!could) GTEST_SKIP() << no_small_disk;
  }
}

/// Another program takes the space between the look and the writing.
TEST(FullDisk, WithinASaveAbortsItOnAllProcesses) {
  const TemporaryFolder run;
  const bool could = on_small_disk(run.path(), 1000, [&] {
    const auto endings = test::run_threads(3, [&](const Peers& plain) {
      bool fill_next = false;
      Peers peers = plain;
      peers.all_gather = [&](const std::string& text) {
        auto texts = plain.all_gather(text);
        if (plain.rank == 0 && fill_next) fill(run.path(), 16), fill_next = false;
        // nobody writes before the disk is full
        return plain.all_gather(texts[static_cast<size_t>(plain.rank)]);
      };
      CheckpointStore store(run.path(), keep(9), peers);
      SaveAttempts attempts(plain.first());
      const auto save = [&](int64_t step) {
        return attempts.attempt(step, [&] { save_group(store, step); });
      };
      EXPECT_TRUE(save(10));
      fill_next = true;
      EXPECT_FALSE(save(20)) << "rank " << plain.rank;
      EXPECT_TRUE(!plain.first() || entries(run / "checkpoints") == 1U)
          << "the unfinished save is removed";
      together(plain, [&] {
        if (plain.first()) fs::remove(run / "filler");
      });
      EXPECT_TRUE(save(30));
      fill_next = true;
      EXPECT_FALSE(save(40)) << "not the second in a row";
      save(50);
    });
    for (const auto& ending : endings) {
      EXPECT_EQ(ending.code, static_cast<int>(ExitCode::io));
      EXPECT_THAT(ending.error, AllOf(HasSubstr("step 50"), HasSubstr("second save in a row"),
                                      HasSubstr("needed"), HasSubstr("free")));
    }
    EXPECT_EQ(CheckpointStore(run.path(), keep(9)).newest_valid()->step, 30);
  });
  if (!could) GTEST_SKIP() << no_small_disk;
}

/// The tensors fit, the manifest does not: the last moment before the commit.
TEST(FullDisk, AtTheManifestOfOneProcess) {
  const TemporaryFolder run;
  const bool could = on_small_disk(run.path(), 200, [&] {
    CheckpointStore store(run.path(), keep(2));
    save_group(store, 10);
    const GroupData data(20);
    const nlohmann::json huge{{"text", std::string(500'000, 'x')}};
    SaveAttempts attempts;
    testing::internal::CaptureStderr();
    EXPECT_FALSE(attempts.attempt(20, [&] { store.save(20, data.groups(), huge); }));
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                AllOf(HasSubstr("step 20: not saved"), HasSubstr("manifest.json"),
                      HasSubstr("needed"), HasSubstr("free")));
    EXPECT_EQ(entries(run / "checkpoints"), 1U);
    error_of([&] { attempts.attempt(30, [&] { store.save(30, data.groups(), huge); }); },
             ExitCode::io);
    EXPECT_EQ(store.newest_valid()->step, 10);
  });
  if (!could) GTEST_SKIP() << no_small_disk;
}

TEST(SaveAttempts, WarnsOnceAndEndsAtTheSecondInARow) {
  SaveAttempts attempts;
  const auto fail = [](ExitCode code) { return [code] { throw UserError(code, "the cause"); }; };
  EXPECT_TRUE(attempts.attempt(1, [] {}));
  testing::internal::CaptureStderr();
  EXPECT_FALSE(attempts.attempt(2, fail(ExitCode::io)));
  EXPECT_TRUE(attempts.attempt(3, [] {}));
  EXPECT_FALSE(attempts.attempt(4, fail(ExitCode::cannot_create)));
  EXPECT_TRUE(attempts.attempt(5, [] {}));
  EXPECT_FALSE(
      attempts.attempt(6, [] { throw fs::filesystem_error("the cause", std::error_code()); }));
  const std::string warnings = testing::internal::GetCapturedStderr();
  for (const char* step : {"step 2", "step 4", "step 6"})
    EXPECT_THAT(warnings, HasSubstr(std::string(step) + ": not saved: "));
  EXPECT_THAT(
      error_of([&] { attempts.attempt(7, fail(ExitCode::permission)); }, ExitCode::io),
      AllOf(HasSubstr("step 7"), HasSubstr("second save in a row"), HasSubstr("the cause")));
}

TEST(SaveAttempts, LetsOtherErrorsThroughAndCanBeSilent) {
  SaveAttempts attempts(/*speaks=*/false);
  error_of([&] { attempts.attempt(1, [] { throw UserError(ExitCode::distributed, "gone"); }); },
           ExitCode::distributed);
  EXPECT_THROW(attempts.attempt(1, [] { throw InternalError("a defect"); }), InternalError);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(attempts.attempt(2, [] { throw UserError(ExitCode::io, "full"); }))
      << "those before were no failed saves";
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace polysketch
