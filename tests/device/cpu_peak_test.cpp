// SPDX-License-Identifier: Apache-2.0
#include "device/cpu_peak.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "device/device.hpp"
#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

using test::TemporaryFolder;
using test::write_text;

TEST(CpuPeak, TheBestSoFarIsKept) {
  const TemporaryFolder folder;
  const auto file = folder / "cache" / "flops.json";
  EXPECT_EQ(best_so_far(file, "a", 100), 100);
  EXPECT_EQ(best_so_far(file, "a", 50), 100) << "a busy machine is not a slow one";
  EXPECT_EQ(best_so_far(file, "b", 50), 50) << "another machine, type or number of threads";
  EXPECT_EQ(best_so_far(file, "a", 200), 200);
  EXPECT_EQ(best_so_far(file, "a", 1), 200);
  EXPECT_EQ(best_so_far(file, "b", 1), 50);
}

TEST(CpuPeak, ACacheThatCannotBeUsedDoesNoHarm) {
  const TemporaryFolder folder;
  for (const char* content : {"", "nonsense", "[1]", "{\"a\":\"x\"}", "{\"a\":null}"}) {
    write_text(folder / "flops.json", content);
    EXPECT_EQ(best_so_far(folder / "flops.json", "a", 7), 7) << content;
    EXPECT_EQ(best_so_far(folder / "flops.json", "a", 1), 7) << content << ": mended";
  }
  EXPECT_EQ(best_so_far(folder / "flops.json" / "below a file", "a", 7), 7);
}

TEST(CpuPeak, IsMeasuredOnceAProcess) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const double first = measured_cpu_flops(type);
    EXPECT_GT(first, 0);
    EXPECT_EQ(measured_cpu_flops(type), first);
    EXPECT_EQ(peak_flops(at::kCPU, type), first);
  }
}

}  // namespace
}  // namespace polysketch
