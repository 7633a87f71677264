// SPDX-License-Identifier: Apache-2.0
// Processes of a group that are killed while they save: real ones, on sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/group_fixture.hpp"
#include "checkpoint/peers_fixture.hpp"
#include "checkpoint/traced_save.hpp"
#include "helpers/test_helpers.hpp"
#include "support/log.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::is_whole_group;
using test::keep;
using test::run_until_call;
using test::save_group;
using test::SocketStar;
using test::TemporaryFolder;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t stride = 11;
constexpr int kills = 15;
#else
constexpr size_t stride = 1;
constexpr int kills = 60;
#endif
constexpr int64_t world = 3;
constexpr const char* no_tracing = "this kernel does not let a process trace its child";

/// A pipe that is at its end when all processes that were forked after it are gone.
class AllGone {
 public:
  AllGone() {
    if (pipe(ends_.data()) != 0) throw std::runtime_error("no pipe");
  }
  ~AllGone() { close(ends_[0]); }
  void wait() {
    close(ends_[1]);
    char byte = 0;
    while (read(ends_[0], &byte, 1) > 0) {
    }
  }

 private:
  std::array<int, 2> ends_{};
};

void save_as(const Peers& peers, const fs::path& run, int64_t step) {
  CheckpointStore store(run, keep(2), peers);
  save_group(store, step);
}

/// The processes of a group but `except`, forked; each saves `step` and ends.
void fork_others(SocketStar& star, int64_t except, const fs::path& run, int64_t step) {
  for (int64_t rank = 0; rank < world; ++rank) {
    if (rank == except || fork() != 0) continue;
    try {
      save_as(star.join(rank), run, step);
    } catch (const std::exception&) {
      _exit(1);
    }
    _exit(0);
  }
}

/// A new owner finds a whole checkpoint, every other one is whole too, and nothing else is left.
int64_t expect_sound(const fs::path& run, const std::string& when) {
  const RunLock lock(run);
  const CheckpointStore store(run, keep(2));
  const auto loaded = store.newest_valid();
  EXPECT_TRUE(loaded.has_value()) << when;
  if (!loaded) return -1;
  EXPECT_TRUE(is_whole_group(*loaded)) << when;
  for (const int64_t step : store.steps())
    EXPECT_TRUE(is_whole_group(store.verify(store.path_of(step))))
        << "step " << step << ", " << when;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(name.starts_with("step-") && name.find(".tmp-") == std::string::npos)
        << name << ", " << when;
  }
  return loaded->step;
}

/// Process `victim` is killed at each of its system calls in turn while all save step 30 over 10
/// and 20.
void crash_everywhere(int64_t victim, size_t& stops) {
  set_log_level(LogLevel::error);
  const TemporaryFolder prepared;
  test::expect_all_ok(test::run_threads(world, [&](const Peers& peers) {
    for (const int64_t step : {10, 20}) save_as(peers, prepared.path(), step);
  }));
  bool finished = false;
  for (stops = 0; !finished; stops += stride) {
    const TemporaryFolder run;
    fs::copy(prepared.path(), run.path(), fs::copy_options::recursive);
    AllGone gone;
    const auto traced = run_until_call(
        [&] {
          SocketStar star(world);
          fork_others(star, victim, run.path(), 30);
          save_as(star.join(victim), run.path(), 30);
        },
        stops);
    gone.wait();
    if (!traced.traced) GTEST_SKIP() << no_tracing;
    finished = traced.finished;
    const int64_t step =
        expect_sound(run.path(), fmt::format("rank {} stopped at call {}", victim, stops));
    EXPECT_TRUE(step == 30 || (step == 20 && !finished))
        << "step " << step << ", stopped at call " << stops;
  }
  set_log_level(LogLevel::info);
}

TEST(CrashOfOne, AtAnyCallOfTheFirst) {
  size_t stops = 0;
  crash_everywhere(0, stops);
  if (IsSkipped()) return;
  EXPECT_GT(stops, 60U) << "a save makes more calls than that";
}

TEST(CrashOfOne, AtAnyCallOfAnother) {
  size_t stops = 0;
  crash_everywhere(1, stops);
  if (IsSkipped()) return;
  EXPECT_GT(stops, 30U) << "a save makes more calls than that";
}

/// What a process reports to the first is durable before: no file and no folder entry of its own is
/// unsynced when it says that it is done.
TEST(CrashOfOne, EverythingIsDurableBeforeItIsReported) {
  const TemporaryFolder run;
  AllGone gone;
  const auto traced = run_until_call(
      [&] {
        SocketStar star(world);
        fork_others(star, 1, run.path(), 30);
        save_as(star.join(1), run.path(), 30);
      },
      std::numeric_limits<size_t>::max());
  gone.wait();
  if (!traced.traced) GTEST_SKIP() << no_tracing;
  ASSERT_TRUE(traced.finished);
  std::set<std::string> unsynced;
  size_t sent = 0, written = 0;
  for (const test::Call& call : traced.calls) {
    // Only files: a sanitizer probes memory by writing into a pipe.
    const bool writes =
        (call.number == SYS_write || call.number == SYS_pwrite64) && call.path.starts_with("/");
    if (writes) written += unsynced.insert(call.path).second ? 1 : 0;
    if (call.number == SYS_fsync || call.number == SYS_fdatasync) unsynced.erase(call.path);
    if (!call.to.empty()) {
      EXPECT_EQ(unsynced.count(call.from), 0U) << call.from << " renamed before it was synced";
      unsynced.insert(fs::path(call.to).parent_path().string());
    }
    if (call.number != SYS_sendto) continue;
    ++sent;
    EXPECT_TRUE(unsynced.empty()) << *unsynced.begin() << " was not durable at report " << sent;
  }
  EXPECT_EQ(sent, 3U) << "begun, written, committed";
  EXPECT_GE(written, 2U) << "its file of each group";
}

/// A process of a group that saves one step after another is killed at a random moment. What the
/// first had been told is saved still loads.
TEST(CrashOfOne, AtRandomMoments) {
  set_log_level(LogLevel::error);
  auto* saved = new (mmap(nullptr, sizeof(std::atomic<int64_t>), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)) std::atomic<int64_t>(0);
  Philox random(17, RandomPurpose::test);
  const TemporaryFolder run;  // the same for all, so that each group finds what the one before left
  int64_t newest = 0, progress = 0;
  for (int kill_number = 0; kill_number < kills; ++kill_number) {
    AllGone gone;
    SocketStar star(world);
    std::array<pid_t, world> group{};
    for (int64_t rank = 0; rank < world; ++rank) {
      group[static_cast<size_t>(rank)] = fork();
      if (group[static_cast<size_t>(rank)] != 0) continue;
      try {
        const Peers peers = star.join(rank);
        const RunLock lock(run.path(), peers);
        CheckpointStore store(run.path(), keep(2), peers);
        const auto loaded = store.newest_valid();
        for (int64_t step = loaded ? loaded->step + 10 : 10;; step += 10) {
          save_group(store, step);
          if (rank == 0) saved->store(step);
        }
      } catch (const std::exception&) {  // another has died
      }
      _exit(0);
    }
    star.keep(-1);
    const auto target = newest + 10 * static_cast<int64_t>(random.bounded(4));
    while (saved->load() < target) {  // let it come some way, then strike anywhere
      siginfo_t ended{};
      ASSERT_EQ(waitid(P_PID, static_cast<id_t>(group[0]), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
      ASSERT_EQ(ended.si_pid, 0) << "a group that nobody disturbed has ended";
      usleep(100);
    }
    usleep(static_cast<useconds_t>(random.bounded(10'000)));
    kill(group[random.bounded(world)], SIGKILL);
    for (const pid_t process : group) waitpid(process, nullptr, 0);
    gone.wait();
    if (saved->load() == 0) continue;
    const int64_t step = expect_sound(run.path(), fmt::format("kill {}", kill_number));
    EXPECT_GE(step, saved->load()) << "reported as saved, but not there";
    progress += step > newest ? 1 : 0;
    newest = step;
  }
  EXPECT_GT(progress, kills / 3) << "most groups save something before they die";
  munmap(saved, sizeof(*saved));
  set_log_level(LogLevel::info);
}

}  // namespace
}  // namespace polysketch
