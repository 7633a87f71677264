// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>
#include <string>

#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/traced_save.hpp"
#include "helpers/test_helpers.hpp"
#include "support/log.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::is_whole;
using test::keep;
using test::run_until_call;
using test::save_step;
using test::TemporaryFolder;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t stride = 7;  // the order of calls is the same there, only slower
#else
constexpr size_t stride = 1;
#endif

constexpr const char* no_tracing = "this kernel does not let a process trace its child";

/// Saves `next` over a run that has the steps of `before`, stopped at each of its system calls in
/// turn; after each stop a new owner must find the old newest or the new step, whole, the oldest
/// that retention keeps must be whole too, and nothing else must remain.
void crash_everywhere(const std::vector<int64_t>& before, int64_t next, size_t& stops) {
  set_log_level(LogLevel::warning);
  const TemporaryFolder prepared;
  {
    CheckpointStore store(prepared.path(), keep(2));
    for (const int64_t step : before) save_step(store, step);
  }
  bool finished = false;
  for (stops = 0; !finished; stops += stride) {
    const TemporaryFolder run;
    fs::copy(prepared.path(), run.path(), fs::copy_options::recursive);
    const auto traced = run_until_call(
        [&] {
          CheckpointStore store(run.path(), keep(2));
          save_step(store, next);
        },
        stops);
    if (!traced.traced) GTEST_SKIP() << no_tracing;
    finished = traced.finished;

    const RunLock lock(run.path());
    const CheckpointStore store(run.path(), keep(2));
    const auto loaded = store.newest_valid();
    ASSERT_TRUE(loaded.has_value() || before.empty()) << "stopped at call " << stops;
    if (loaded) {
      EXPECT_TRUE(loaded->step == next || (!before.empty() && loaded->step == before.back()))
          << "step " << loaded->step << ", stopped at call " << stops;
      EXPECT_TRUE(is_whole(*loaded)) << "stopped at call " << stops;
    }
    for (const int64_t step : store.steps())
      EXPECT_TRUE(is_whole(store.verify(store.path_of(step))))
          << "step " << step << ", stopped at call " << stops;
    if (fs::exists(run / "checkpoints")) {
      for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
        EXPECT_EQ(entry.path().filename().string().substr(0, 5), "step-") << entry.path();
        EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos)
            << entry.path();
      }
    }
    if (finished) {
      ASSERT_TRUE(loaded.has_value());
      EXPECT_EQ(loaded->step, next);
    }
  }
  set_log_level(LogLevel::info);
}

TEST(Crash, AtAnyCallOfASaveWithRetention) {
  size_t stops = 0;
  crash_everywhere({10, 20}, 30, stops);
  if (IsSkipped()) return;
  RecordProperty("stops", static_cast<int>(stops));
  EXPECT_GT(stops, 40U) << "a save makes more calls than that";
}

TEST(Crash, AtAnyCallOfTheFirstSave) {
  size_t stops = 0;
  crash_everywhere({}, 10, stops);
}

TEST(Crash, AtAnyCallOfASecondSaveOfTheSameStep) {
  size_t stops = 0;
  crash_everywhere({10, 20}, 20, stops);
}

/// What makes a checkpoint survive loss of power, as the order of calls: every file and folder
/// durable under its final name before anything names it.
TEST(Crash, EverythingIsDurableBeforeItIsNamed) {
  const TemporaryFolder run;
  CheckpointStore store(run.path(), keep(2));
  for (const int64_t step : {10, 20}) save_step(store, step);
  const auto traced =
      run_until_call([&] { save_step(store, 30); }, std::numeric_limits<size_t>::max());
  if (!traced.traced) GTEST_SKIP() << no_tracing;
  ASSERT_TRUE(traced.finished);

  std::set<std::string> unsynced;  // paths whose content, or entries for a folder, may be lost
  std::vector<std::string> order;
  for (const test::Call& call : traced.calls) {
    if (call.number == SYS_write || call.number == SYS_pwrite64) unsynced.insert(call.path);
    if (call.number == SYS_fsync || call.number == SYS_fdatasync) unsynced.erase(call.path);
    if (call.to.empty()) continue;
    EXPECT_EQ(unsynced.count(call.from), 0U) << call.from << " renamed before it was synced";
    const bool is_folder = fs::path(call.to).filename().string().find("step-") != std::string::npos;
    const std::string checkpoints = (run / "checkpoints").string();
    if (call.to.find(".trash-") != std::string::npos) {
      EXPECT_EQ(unsynced.count(checkpoints), 0U)
          << "an old checkpoint deleted before the new one's name is durable";
    }
    if (is_folder) {
      for (const std::string& path : unsynced)
        EXPECT_NE(path.substr(0, call.from.size()), call.from)
            << path << " not durable when its folder was named";
    }
    order.push_back(fs::path(call.to).filename().string());
    unsynced.insert(fs::path(call.to).parent_path().string());
  }
  EXPECT_EQ(unsynced.count((run / "checkpoints").string()), 0U)
      << "the folder of the checkpoints must be synced last";
  EXPECT_THAT(order,
              testing::ElementsAre("model.safetensors", "optimizer.safetensors", "manifest.json",
                                   "step-00000030", testing::StartsWith(".trash-step-00000010")));
}

}  // namespace
}  // namespace polysketch
