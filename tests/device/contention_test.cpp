// SPDX-License-Identifier: Apache-2.0
#include "device/contention.hpp"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>
#include <sys/resource.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

TEST(Contention, AtOnceWhenThreadsWaitMuchAndNoLongerAfterSecondsOfLittle) {
  ContentionGauge gauge(4);
  gauge.add(0.05, 0.2);  // 6 % of the time of a thread
  EXPECT_FALSE(gauge.contended());
  gauge.add(0.1, 0.2);
  EXPECT_TRUE(gauge.contended());
  EXPECT_DOUBLE_EQ(gauge.share(), 0.125);
  for (int i = 0; i < 9; ++i) gauge.add(0.001, 0.2);
  EXPECT_TRUE(gauge.contended()) << "1.8 seconds are too short";
  gauge.add(0.05, 0.2);
  for (int i = 0; i < 9; ++i) gauge.add(0.001, 0.2);
  EXPECT_TRUE(gauge.contended()) << "there was some again in between";
  EXPECT_NEAR(gauge.seconds(), 4, 1e-9);
  gauge.add(0, 0.2);
  gauge.add(0, 0.2);
  EXPECT_FALSE(gauge.contended());
  EXPECT_EQ(gauge.seconds(), 0);
}

TEST(Contention, WaitingIsReadFromTheKernelsFiles) {
  const test::TemporaryFolder folder;
  EXPECT_TRUE(waited_for_processors(folder.path()).empty());
  test::write_text(folder / "task/17/schedstat", "15794233 2500000000 12\n");
  test::write_text(folder / "task/18/schedstat", "1 500000 1\n");
  test::write_text(folder / "task/19/schedstat", "");  // a thread that just ended
  const auto waited = waited_for_processors(folder.path());
  ASSERT_EQ(waited.size(), 2U);
  EXPECT_DOUBLE_EQ(waited.at("17"), 2.5);
  EXPECT_DOUBLE_EQ(waited.at("18"), 0.0005);
}

/// at::parallel_for in our own code uses the threads that there are.
TEST(Contention, OurOwnLoopsAreSharedOutAmongThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  std::array<int, 3> thread{-1, -1, -1};
  at::parallel_for(0, 3, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) thread[static_cast<size_t>(i)] = omp_get_thread_num();
  });
  at::set_num_threads(before);
  EXPECT_EQ(std::set(thread.begin(), thread.end()).size(), 3U);
}

/// Whether the first of two threads on one processor sleeps as soon as it waits for the other:
/// twice for each of 100 meetings. One that spins first gives way to the other in the meantime and
/// sleeps once at most.
bool sleeps_at_once() {
  rusage begin{}, end{};
  getrusage(RUSAGE_THREAD, &begin);
  for (int i = 0; i < 100; ++i) {
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 1) {
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
      while (std::chrono::steady_clock::now() < until) {
      }
    }
  }
  getrusage(RUSAGE_THREAD, &end);
  return end.ru_nvcsw - begin.ru_nvcsw >= 150;
}

// In a process of its own: without threads of other tests, and without what the environment says
// about waiting. Its exit code: 0 they sleep, 1 they spin to the end, 2 they slept from the
// beginning.
TEST(Contention, DISABLED_TwoThreadsOnOneProcessor) {
  at::set_num_threads(2);
  int code = 1;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);  // and of the second thread, begun here
    if (sleeps_at_once()) {
      code = 2;
      return;
    }
    watch_contention();
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (code == 1 && std::chrono::steady_clock::now() < limit) code = sleeps_at_once() ? 0 : 1;
  }).join();
  std::exit(code);
}

TEST(Contention, ThreadsThatShareAProcessorSleepWhenTheyWait) {
  if (waited_for_processors().empty()) GTEST_SKIP() << "the kernel does not tell who waits";
  const auto result = test::run_process(
      {"env", "-u", "OMP_WAIT_POLICY", "-u", "GOMP_SPINCOUNT",
       std::filesystem::read_symlink("/proc/self/exe").string(), "--gtest_also_run_disabled_tests",
       "--gtest_filter=Contention.DISABLED_TwoThreadsOnOneProcessor"});
  if (result.exit_code == 2) GTEST_SKIP() << "threads that wait sleep here anyway";
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
}

}  // namespace
}  // namespace polysketch
