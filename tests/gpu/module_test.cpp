// SPDX-License-Identifier: Apache-2.0
#include "support/cuda_module.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/error.hpp"

namespace polysketch {
namespace {

TEST(CudaModule, WithoutAGpuTheErrorSaysWhatToDo) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "needs a machine without a GPU";
  EXPECT_EQ(cuda_module(), nullptr);
  try {
    load_cuda_module();
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    EXPECT_THAT(error.what(), testing::HasSubstr("training.device=cpu"));
  }
  EXPECT_EQ(cuda_module(), nullptr);
}

TEST(CudaModule, KnowsTheGpuAndItsMemory) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  const CudaModule& module = load_cuda_module();
  EXPECT_EQ(&module, cuda_module());
  EXPECT_EQ(module.device_count(), cuda_device_count());
  char name[256];
  ASSERT_TRUE(module.device_name(0, name, sizeof name));
  EXPECT_THAT(name, testing::HasSubstr("NVIDIA"));
  EXPECT_GT(module.multiprocessors(0), 0);
  EXPECT_GE(module.compute_capability(0), 75);
  int64_t free = 0, total = 0;
  ASSERT_TRUE(module.free_total_bytes(0, &free, &total));
  EXPECT_GT(free, 0);
  EXPECT_LE(free, total);

  at::globalContext().lazyInitDevice(at::kCUDA);  // as open_device does
  ASSERT_TRUE(module.reset_peak(0)) << module.last_error();
  const int64_t before = module.allocated_bytes(0);
  constexpr int64_t kBytes = int64_t{64} << 20;
  { const at::Tensor tensor = at::empty({kBytes}, at::device(at::kCUDA).dtype(at::kByte)); }
  EXPECT_EQ(module.allocated_bytes(0), before);
  EXPECT_EQ(module.peak_allocated_bytes(0), before + kBytes);
  EXPECT_GE(module.peak_reserved_bytes(0), before + kBytes);
  EXPECT_GE(module.cached_bytes(0), 0);
  EXPECT_TRUE(module.synchronize(0));
}

TEST(CudaModule, FailureOfACallIsTold) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  const CudaModule& module = load_cuda_module();
  char name[8];
  EXPECT_FALSE(module.device_name(4096, name, sizeof name));
  EXPECT_STRNE(module.last_error(), "");
}

}  // namespace
}  // namespace polysketch
