// SPDX-License-Identifier: Apache-2.0
// The exchanges of a run over NCCL: one process, and two that share the one GPU at hand.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "distributed/gradient_reducer.hpp"
#include "distributed/ranks.hpp"
#include "distributed/replica_check.hpp"
#include "distributed/world.hpp"
#include "helpers/test_helpers.hpp"
#include "helpers/tolerances.hpp"
#include "support/cuda_module.hpp"
#include "training/adamw.hpp"

namespace polysketch {
namespace {

/// Parameters on the GPU, with gradients that differ from process to process.
std::unique_ptr<Parameters> parameters_on_gpu(int64_t rank, int64_t world, bool sharded) {
  auto parameters = std::make_unique<Parameters>();
  parameters->add("embedding", {300, 64}, Initializer::embedding, true);
  for (int i = 0; i < 4; ++i)
    parameters->add("matrix" + std::to_string(i), {192, 64}, Initializer::lecun_normal, true,
                    false);
  parameters->allocate(at::Device(at::kCUDA, 0), at::kBFloat16, at::kFloat,
                       {rank, world, 50'000, sharded});
  parameters->initialize(5);
  return parameters;
}

at::Tensor gradient_of(int64_t rank, int64_t count) {
  return (at::arange(count, at::kDouble) * 0.731 + 17.0 * static_cast<double>(rank))
      .sin()
      .to(at::kFloat);
}

void exercise(World& world) {
  Collectives& all = world.collectives();
  const int64_t w = world.size(), r = world.rank();
  EXPECT_EQ(all.transport(), "nccl");
  const at::Device gpu(at::kCUDA, 0);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto options = at::TensorOptions().dtype(type).device(gpu);
    at::Tensor sum = at::full({1000}, r + 1, options);
    all.all_reduce(sum, ReduceOperation::sum, "sum")->wait();
    EXPECT_TRUE(sum.eq(w * (w + 1) / 2).all().item<bool>());
    at::Tensor parts = at::zeros({w * 3}, options);
    parts.narrow(0, 3 * r, 3).fill_(r + 7);
    all.all_gather(parts, parts.narrow(0, 3 * r, 3), "gather in place")->wait();
    EXPECT_TRUE(parts.cpu().view({w, 3}).eq(at::arange(w).view({w, 1}) + 7).all().item<bool>());
    at::Tensor scatter = at::arange(2 * w, options);
    all.reduce_scatter(scatter, "scatter")->wait();
    EXPECT_TRUE(
        scatter.narrow(0, 2 * r, 2).cpu().eq(at::arange(2 * r, 2 * r + 2) * w).all().item<bool>());
  }
  EXPECT_EQ(all.all_gather_text(std::to_string(r), "texts").size(), static_cast<size_t>(w));

  // Buckets while "backward" goes on, and both optimisers.
  const auto whole = parameters_on_gpu(r, w, false), parts = parameters_on_gpu(r, w, true);
  OptimizerConfig config;
  AdamW one(*whole, config), other(*parts, config, &all);
  for (const auto& [parameters, scatter, optimizer] :
       {std::tuple{whole.get(), false, &one}, std::tuple{parts.get(), true, &other}}) {
    GradientReducer reducer(*parameters, all, ReduceType::fp32, scatter);
    parameters->flat_gradient().copy_(gradient_of(r, parameters->flat_gradient().numel()));
    reducer.begin();
    for (size_t i = parameters->infos().size(); i-- > 0;) reducer.ready(i);
    reducer.finish();
    at::Tensor want = at::zeros({parameters->flat_gradient().numel()});
    for (int64_t rank = 0; rank < w; ++rank) want += gradient_of(rank, want.numel());
    for (const FlatRange& range : parameters->owned()) {
      const auto part = [&](const at::Tensor& flat) {
        return flat.narrow(0, range.begin, range.count());
      };
      EXPECT_LT((part(parameters->flat_gradient().cpu()) - part(want)).abs().max().item<double>(),
                test::tolerance::kThreeSums);
    }
    optimizer->apply(1e-2, 1, optimizer->gradient_norm());
  }
  const double apart = (whole->flat_compute().to(at::kFloat) - parts->flat_compute().to(at::kFloat))
                           .abs()
                           .max()
                           .item<double>();
  EXPECT_LE(apart, test::tolerance::kReorderedBrain);
  require_equal_replicas(world, *whole);
  require_equal_replicas(world, *parts);
}

DistributedConfig limits() {
  DistributedConfig config;
  config.timeout = 120;
  config.step_timeout = 60;
  return config;
}

TEST(Nccl, OneProcessAlone) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  const auto world = World::join({.place = test::place_of(0, 1, 29871),
                                  .config = limits(),
                                  .device = at::Device(at::kCUDA, 0)});
  exercise(*world);
}

// What Nccl.TwoProcessesOnOneGpu starts twice: a process that has used CUDA cannot be forked.
TEST(NcclRank, TakesPart) {
  const char* rank = std::getenv("POLYSKETCH_TEST_RANK");
  if (rank == nullptr) GTEST_SKIP() << "is a part of Nccl.TwoProcessesOnOneGpu";
  const auto world = World::join({.place = test::place_of(std::atol(rank), 2, 29872),
                                  .config = limits(),
                                  .device = at::Device(at::kCUDA, 0)});
  exercise(*world);
}

TEST(Nccl, TwoProcessesOnOneGpu) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const auto start = [&](const std::string& rank) {
    return test::run_process({self, "--gtest_filter=NcclRank.TakesPart"},
                             {"POLYSKETCH_TEST_RANK=" + rank});
  };
  test::ProcessResult second;
  std::thread other([&] { second = start("1"); });
  const test::ProcessResult first = start("0");
  other.join();
  EXPECT_EQ(first.exit_code, 0) << first.out << first.err;
  EXPECT_EQ(second.exit_code, 0) << second.out << second.err;
}

TEST(Nccl, TheLibraryIsTheOneThatWasCompiledFor) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a GPU";
  EXPECT_GE(load_cuda_module().nccl_version(), 22800);
}

}  // namespace
}  // namespace polysketch
