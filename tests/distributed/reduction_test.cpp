// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "distributed/affinity.hpp"
#include "distributed/gradient_reducer.hpp"
#include "distributed/ranks.hpp"
#include "distributed/replica_check.hpp"
#include "distributed/step_agreement.hpp"
#include "distributed/stragglers.hpp"
#include "helpers/test_helpers.hpp"
#include "helpers/tolerances.hpp"
#include "training/adamw.hpp"

namespace polysketch::test {
namespace {

using testing::HasSubstr;

/// Parameters of many sizes, cut into buckets of about `bucket` elements.
std::unique_ptr<Parameters> make_parameters(int64_t rank, int64_t world, int64_t bucket,
                                            bool sharded = false,
                                            at::ScalarType compute = at::kFloat) {
  auto parameters = std::make_unique<Parameters>();
  parameters->add("embedding", {300, 64}, Initializer::embedding, true);
  for (int i = 0; i < 6; ++i) {
    const std::string name = std::to_string(i);
    parameters->add("gain" + name, {64}, Initializer::ones, false);
    parameters->add("matrix" + name, {192, 64}, Initializer::lecun_normal, true,
                    /*forward_wide=*/false);
  }
  parameters->allocate(at::kCPU, compute, at::kFloat, {rank, world, bucket, sharded});
  parameters->initialize(5);
  return parameters;
}

/// Gradients that differ from process to process and from step to step.
void fill_gradients(Parameters& parameters, int64_t seed) {
  for (size_t i = 0; i < parameters.infos().size(); ++i) {
    at::Tensor g = parameters.gradient(i);
    g.copy_((at::arange(g.numel(), at::kDouble) * 0.731 + static_cast<double>(17 * seed) +
             static_cast<double>(i))
                .sin()
                .view(g.sizes()));
  }
}

void say_all_ready(GradientReducer& reducer, const Parameters& parameters) {
  reducer.begin();
  for (size_t i = parameters.infos().size(); i-- > 0;) reducer.ready(i);
  reducer.finish();
}

TEST(Buckets, CoverEverythingOnceAndDivideEvenly) {
  for (const int64_t world : {1, 2, 3, 8}) {
    int64_t sum = 0;
    std::vector<FlatRange> first;
    for (int64_t rank = 0; rank < world; ++rank) {
      const auto parameters = make_parameters(rank, world, 60'000);
      const int64_t size = parameters->flat_gradient().numel();
      int64_t end = size;
      for (size_t b = 0; b < parameters->buckets().size(); ++b) {
        EXPECT_EQ(parameters->buckets()[b].end, end);
        end = parameters->buckets()[b].begin;
        EXPECT_EQ(parameters->owned()[b].count() * world, parameters->buckets()[b].count());
        sum += parameters->owned()[b].count();
      }
      EXPECT_EQ(end, 0);
      if (rank == world - 1) {
        EXPECT_EQ(sum, size);
      }
    }
  }
}

TEST(GradientReducer, AddsUpWhatAllHaveInAnyNumberOfBuckets) {
  for (const auto type : {ReduceType::fp32, ReduceType::bf16}) {
    for (const int64_t bucket : {int64_t{1}, int64_t{50'000}, int64_t{1} << 30}) {
      EXPECT_TRUE(
          run_ranks(3, [&](int64_t rank, int64_t port) {
            const auto world = join(rank, 3, port);
            const auto parameters = make_parameters(rank, 3, bucket);
            GradientReducer reducer(*parameters, world->collectives(), type, /*scatter=*/false);
            at::Tensor want = at::zeros_like(parameters->flat_gradient(), at::kDouble);
            for (int64_t r = 0; r < 3; ++r) {
              fill_gradients(*parameters, r);
              want += parameters->flat_gradient();
            }
            fill_gradients(*parameters, rank);
            say_all_ready(reducer, *parameters);
            const double worst = (parameters->flat_gradient() - want).abs().max().item<double>();
            EXPECT_LT(worst, type == ReduceType::bf16 ? tolerance::kBrain : tolerance::kThreeSums);
            EXPECT_EQ(reducer.bytes(),
                      parameters->flat_gradient().numel() * (type == ReduceType::bf16 ? 2 : 4));
            EXPECT_GT(reducer.times().communication, 0);
          }).all_succeeded());
    }
  }
}

TEST(GradientReducer, ScatteredSumsAreThoseOfTheOwnedPartsBitForBit) {
  EXPECT_TRUE(run_ranks(3, [&](int64_t rank, int64_t port) {
                const auto world = join(rank, 3, port);
                const auto parameters = make_parameters(rank, 3, 50'000);
                GradientReducer whole(*parameters, world->collectives(), ReduceType::fp32, false);
                GradientReducer scattered(*parameters, world->collectives(), ReduceType::fp32,
                                          true);
                fill_gradients(*parameters, rank);
                say_all_ready(whole, *parameters);
                const at::Tensor want = parameters->flat_gradient().clone();
                fill_gradients(*parameters, rank);
                say_all_ready(scattered, *parameters);
                for (const FlatRange& range : parameters->owned()) {
                  const auto part = [&](const at::Tensor& flat) {
                    return flat.narrow(0, range.begin, range.count());
                  };
                  EXPECT_TRUE(part(parameters->flat_gradient()).equal(part(want)));
                }
              }).all_succeeded());
}

TEST(GradientReducer, ABucketWaitsForAllItsParametersAndForThoseBeforeIt) {
  EXPECT_TRUE(run_ranks(2, [&](int64_t rank, int64_t port) {
                const auto world = join(rank, 2, port);
                const auto parameters = make_parameters(rank, 2, 40'000);
                GradientReducer reducer(*parameters, world->collectives(), ReduceType::fp32, false);
                fill_gradients(*parameters, rank);
                reducer.begin();
                // Another order on each process: what is exchanged is the same.
                std::vector<size_t> order(parameters->infos().size());
                std::iota(order.begin(), order.end(), 0);
                if (rank == 0) std::reverse(order.begin(), order.end());
                for (const size_t i : order) reducer.ready(i);
                reducer.finish();
                EXPECT_THROW(
                    {
                      reducer.begin();
                      reducer.ready(0);
                      reducer.finish();
                    },
                    InternalError);
              }).all_succeeded());
}

// Gradients come one by one, as from a backward pass: one that travelled before its bucket is
// complete would be added up as zeros.
TEST(GradientReducer, NothingTravelsBeforeItIsComplete) {
  EXPECT_TRUE(run_ranks(2, [&](int64_t rank, int64_t port) {
                const auto world = join(rank, 2, port);
                const auto parameters = make_parameters(rank, 2, 40'000);
                GradientReducer reducer(*parameters, world->collectives(), ReduceType::fp32, false);
                reducer.begin();
                for (size_t i = parameters->infos().size(); i-- > 0;) {
                  // time for what has been begun too early
                  std::this_thread::sleep_for(std::chrono::milliseconds(5));
                  parameters->gradient(i).fill_(static_cast<double>(rank + 1));
                  reducer.ready(i);
                }
                reducer.finish();
                for (size_t i = 0; i < parameters->infos().size(); ++i)
                  EXPECT_TRUE(parameters->gradient(i).eq(3).all().item<bool>()) << i;
              }).all_succeeded());
}

// LibTorch's own reducer of DistributedDataParallel: one bucket layout, the same bits.
TEST(GradientReducer, EqualsTheReducerOfLibTorchBitForBit) {
  constexpr int64_t kWorld = 2;
  const int64_t second_port = free_port();
  EXPECT_TRUE(
      run_ranks(kWorld, [&](int64_t rank, int64_t port) {
        const auto world = join(rank, kWorld, port);
        // Two buckets, each with whole parameters of whole blocks, so that both layouts can be the
        // same.
        Parameters parameters;
        std::vector<int64_t> sizes{32768, 65536, 98304, 131072};
        for (size_t i = 0; i < sizes.size(); ++i)
          parameters.add(std::to_string(i), {sizes[i]}, Initializer::zeros, false);
        parameters.allocate(at::kCPU, at::kFloat, at::kFloat, {rank, kWorld, 229'376, false});
        ASSERT_EQ(parameters.buckets().size(), 2u);
        ASSERT_EQ(parameters.buckets()[0].begin, 32768 + 65536);

        c10d::TCPStoreOptions options;
        options.port = static_cast<uint16_t>(second_port);
        options.isServer = rank == 0;
        options.waitWorkers = false;
        auto store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
        auto gloo_options = c10d::ProcessGroupGloo::Options::create();
        gloo_options->devices.push_back(
            c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
        const int r = static_cast<int>(rank), w = static_cast<int>(kWorld);
        auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
            c10::make_intrusive<c10d::PrefixStore>("gloo", store), r, w, gloo_options);
        auto group = c10::make_intrusive<c10d::ProcessGroup>(
            c10::make_intrusive<c10d::PrefixStore>("group", store), r, w);
        group->setBackend(at::kCPU, c10d::ProcessGroup::GLOO, gloo);
        group->setDefaultBackend(c10d::ProcessGroup::GLOO);
        group->setGroupName("cross-check");

        std::vector<at::Tensor> leaves, gradients;
        for (size_t i = 0; i < sizes.size(); ++i) {
          leaves.push_back(at::zeros({sizes[i]}).set_requires_grad(true));
          gradients.push_back((at::arange(sizes[i], at::kDouble) * 0.731 +
                               17.0 * static_cast<double>(rank) + static_cast<double>(i))
                                  .sin()
                                  .to(at::kFloat));
        }
        c10d::Reducer reducer(leaves, {{3, 2}, {1, 0}}, group, std::vector<bool>(4, false), 1 << 20,
                              false, false, {}, 1 << 20, false, false, {1 << 20});
        reducer.prepare_for_backward({});
        at::Tensor loss = at::zeros({});
        for (size_t i = 0; i < sizes.size(); ++i) loss = loss + (leaves[i] * gradients[i]).sum();
        loss.backward();

        GradientReducer own(parameters, world->collectives(), ReduceType::fp32, false);
        // it averages
        for (size_t i = 0; i < sizes.size(); ++i)
          parameters.gradient(i).copy_(gradients[i] / kWorld);
        say_all_ready(own, parameters);
        for (size_t i = 0; i < sizes.size(); ++i)
          EXPECT_TRUE(parameters.gradient(i).equal(leaves[i].grad())) << i;
        world->collectives().all_gather_text("", "both are done");
      }).all_succeeded());
}

/// The sum of M shards on W processes, as bytes.
at::Tensor canonical_sum(int64_t world_size, int64_t shards) {
  const TemporaryFolder folder;
  EXPECT_TRUE(run_ranks(world_size, [&](int64_t rank, int64_t port) {
                const auto world = world_size == 1 ? World::alone() : join(rank, world_size, port);
                const auto parameters = make_parameters(rank, world_size, 50'000);
                CanonicalReduction reduction(*parameters, world->collectives(), shards);
                for (int step = 0; step < 2; ++step) {  // the second uses the buffers of the first
                  for (int64_t i = 0; i < shards / world_size; ++i) {
                    fill_gradients(*parameters, rank * (shards / world_size) + i + step);
                    reduction.sum_complete();
                    EXPECT_EQ(parameters->flat_gradient().count_nonzero().item<int64_t>(), 0);
                  }
                  reduction.finish();
                }
                if (rank != world_size - 1) return;
                std::string text;
                for (size_t i = 0; i < parameters->infos().size(); ++i) {
                  const at::Tensor g = parameters->gradient(i).contiguous();
                  text.append(static_cast<const char*>(g.data_ptr()), g.nbytes());
                }
                write_text(folder / "sum", text);
              }).all_succeeded());
  const std::string bytes = read_text(folder / "sum");
  return at::from_blob(const_cast<char*>(bytes.data()), {static_cast<int64_t>(bytes.size() / 4)},
                       at::kFloat)
      .clone();
}

TEST(CanonicalReduction, IsTheSameOnAnyNumberOfProcessesThatDividesTheShards) {
  const at::Tensor one = canonical_sum(1, 6);
  EXPECT_GT(one.count_nonzero().item<int64_t>(), 80'000);
  for (const int64_t world : {2, 3, 6}) EXPECT_TRUE(canonical_sum(world, 6).equal(one)) << world;
}

TEST(ShardedAdamW, UpdatesAsTheWholeOneBitForBit) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    EXPECT_TRUE(run_ranks(3, [&](int64_t rank, int64_t port) {
                  const auto world = join(rank, 3, port);
                  const auto whole = make_parameters(rank, 3, 50'000, false, compute),
                             parts = make_parameters(rank, 3, 50'000, true, compute);
                  EXPECT_EQ(parts->masters_sharded(), compute == at::kBFloat16);
                  OptimizerConfig config;
                  config.clip = 0.5;
                  AdamW one(*whole, config), other(*parts, config, &world->collectives());
                  EXPECT_EQ(other.first_moment().numel() * 3, one.first_moment().numel());
                  for (int64_t update = 1; update <= 3; ++update) {
                    fill_gradients(*whole, update);
                    fill_gradients(*parts, update);
                    const at::Tensor a = one.gradient_norm(), b = other.gradient_norm();
                    EXPECT_TRUE(a.equal(b));
                    one.apply(1e-2, update, a);
                    other.apply(1e-2, update, b);
                    EXPECT_EQ(parts->flat_gradient().count_nonzero().item<int64_t>(), 0);
                  }
                  EXPECT_TRUE(whole->flat_compute().equal(parts->flat_compute()));
                  for (size_t i = 0; i < whole->infos().size(); ++i) {
                    if (!whole->infos()[i].forward_wide) continue;
                    EXPECT_TRUE(whole->master(i).equal(parts->master(i))) << i;
                  }
                  int64_t kept = 0;
                  for (size_t i = 0; i < parts->owned().size(); ++i) {
                    const FlatRange& range = parts->owned()[i];
                    EXPECT_TRUE(whole->flat_master()
                                    .narrow(0, range.begin, range.count())
                                    .equal(parts->owned_master(i)));
                    EXPECT_TRUE(one.second_moment()
                                    .narrow(0, range.begin, range.count())
                                    .equal(other.second_moment().narrow(0, kept, range.count())));
                    kept += range.count();
                  }
                }).all_succeeded());
  }
}

TEST(StepAgreement, AddsDigestsModulo2To64AndKeepsSlotsApart) {
  EXPECT_TRUE(
      run_ranks(3, [&](int64_t rank, int64_t port) {
        const auto world = join(rank, 3, port);
        StepFacts own(3, 6);
        own.nats[static_cast<size_t>(2 * rank)] = 0.1 * static_cast<double>(rank + 1);
        own.nats[static_cast<size_t>(2 * rank + 1)] = 1e9;
        own.digest = 0xfedcba9876543210u + static_cast<uint64_t>(rank);
        own.stop = rank == 2;
        own.computing[static_cast<size_t>(rank)] = static_cast<double>(rank);
        const StepFacts all = agree(world->collectives(), own);
        EXPECT_EQ(all.nats, (std::vector<double>{0.1 * 1.0, 1e9, 0.1 * 2.0, 1e9, 0.1 * 3.0, 1e9}));
        EXPECT_EQ(all.digest, 3 * 0xfedcba9876543210u + 3);
        EXPECT_TRUE(all.stop);
        EXPECT_FALSE(all.save);
        EXPECT_EQ(all.computing, (std::vector<double>{0, 1, 2}));
      }).all_succeeded());
}

TEST(ReplicaCheck, ASingleWrongBitIsFoundAndItsProcessNamed) {
  const auto results = run_ranks(3, [&](int64_t rank, int64_t port) {
    const auto world = join(rank, 3, port);
    const auto parameters = make_parameters(rank, 3, 50'000, false, at::kBFloat16);
    require_equal_replicas(*world, *parameters);
    if (rank == 1) static_cast<uint16_t*>(parameters->flat_compute().data_ptr())[12345] ^= 1;
    try {
      require_equal_replicas(*world, *parameters);
      ADD_FAILURE() << "not found";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::hardware);
      EXPECT_THAT(error.what(), HasSubstr("different from most: rank 1 ("));
      EXPECT_THAT(error.what(), testing::Not(HasSubstr("rank 0 (")));
    }
  });
  EXPECT_TRUE(results.all_succeeded());
}

TEST(Affinity, SharesAreConsecutiveAndCoverAll) {
  const std::vector<int> processors{0, 1, 2, 5, 6, 7, 8};
  for (const int64_t processes : {1, 2, 3, 7}) {
    std::vector<int> together;
    for (int64_t rank = 0; rank < processes; ++rank) {
      const auto own = share_of_processors(processors, rank, processes);
      EXPECT_GE(own.size(), processors.size() / static_cast<size_t>(processes));
      together.insert(together.end(), own.begin(), own.end());
    }
    EXPECT_EQ(together, processors);
  }
  // more processes than processors
  EXPECT_EQ(share_of_processors({3, 4}, 2, 5), std::vector<int>{3});
}

TEST(Stragglers, TheOneThatComputesLongestIsNamedAfterAWhile) {
  EXPECT_TRUE(run_ranks(3, [&](int64_t rank, int64_t port) {
                const auto world = join(rank, 3, port);
                Stragglers stragglers(*world, 1.5);
                for (int step = 0; step < 20; ++step)
                  EXPECT_FALSE(stragglers.look({1.0, 1.1, 1.2}, 0.01));
                int named = 0;
                for (int step = 0; step < 50; ++step) {
                  const auto who = stragglers.look({1.0, 1.1, 2.0}, 0.01);
                  if (!who) continue;
                  ++named;
                  EXPECT_THAT(*who, HasSubstr("rank 2 ("));
                }
                EXPECT_EQ(named, 1);  // not again and again
                for (const double seconds : stragglers.probe_links()) EXPECT_GT(seconds, 0);
              }).all_succeeded());
}

}  // namespace
}  // namespace polysketch::test
