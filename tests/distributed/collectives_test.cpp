// SPDX-License-Identifier: Apache-2.0
#include "distributed/collectives.hpp"

#include <ATen/ATen.h>

#include "distributed/ranks.hpp"

namespace polysketch::test {
namespace {

class CollectivesTest : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Worlds, CollectivesTest, testing::Values(1, 2, 3));

TEST_P(CollectivesTest, GiveWhatTheirNamesSay) {
  const int64_t world = GetParam();
  EXPECT_TRUE(
      run_ranks(world, [&](int64_t rank, int64_t port) {
        const auto w = join(rank, world, port);
        Collectives& all = w->collectives();
        EXPECT_EQ(all.rank(), rank);
        EXPECT_EQ(all.world(), world);
        for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
          at::Tensor sum = at::full({1000}, static_cast<double>(rank + 1), type);
          all.all_reduce(sum, ReduceOperation::sum, "sum")->wait();
          EXPECT_TRUE(sum.eq(world * (world + 1) / 2).all().item<bool>()) << type;
          at::Tensor parts = at::zeros({world * 3}, type);
          all.all_gather(parts, at::full({3}, static_cast<double>(rank), type), "gather")->wait();
          EXPECT_TRUE(
              parts.view({world, 3}).eq(at::arange(world).view({world, 1})).all().item<bool>());
          parts.narrow(0, 3 * rank, 3).fill_(rank + 7);
          all.all_gather(parts, parts.narrow(0, 3 * rank, 3), "gather in place")->wait();
          EXPECT_TRUE(
              parts.view({world, 3}).eq(at::arange(world).view({world, 1}) + 7).all().item<bool>());
          at::Tensor scatter = at::arange(2 * world, type);
          all.reduce_scatter(scatter, "scatter")->wait();
          EXPECT_TRUE(scatter.narrow(0, 2 * rank, 2)
                          .eq(at::arange(2 * rank, 2 * rank + 2) * world)
                          .all()
                          .item<bool>());
          at::Tensor one = at::full({5}, static_cast<double>(rank), type);
          all.broadcast(one, world - 1, "broadcast")->wait();
          EXPECT_TRUE(one.eq(world - 1).all().item<bool>());
        }
        std::vector<double> values{static_cast<double>(rank), -static_cast<double>(rank)};
        all.all_reduce(values, ReduceOperation::max, "largest");
        EXPECT_EQ(values, (std::vector<double>{static_cast<double>(world - 1), 0}));
        const auto texts =
            all.all_gather_text(std::string(static_cast<size_t>(rank * 5), 'x') + "\n", "texts");
        ASSERT_EQ(texts.size(), static_cast<size_t>(world));
        for (int64_t r = 0; r < world; ++r) {
          EXPECT_EQ(texts[static_cast<size_t>(r)],
                    std::string(static_cast<size_t>(r * 5), 'x') + "\n");
        }
      }).all_succeeded());
}

TEST(Collectives, ManyAtOnceEndInTheOrderTheyWereBegun) {
  EXPECT_TRUE(run_ranks(2, [&](int64_t rank, int64_t port) {
                const auto w = join(rank, 2, port);
                std::vector<at::Tensor> tensors;
                std::vector<Pending> pending;
                for (int i = 0; i < 20; ++i) {
                  tensors.push_back(at::full({100'000}, i * (rank + 1), at::kFloat));
                  pending.push_back(
                      w->collectives().all_reduce(tensors.back(), ReduceOperation::sum, "many"));
                }
                for (int i = 0; i < 20; ++i) {
                  pending[static_cast<size_t>(i)]->wait();
                  EXPECT_TRUE(tensors[static_cast<size_t>(i)].eq(3 * i).all().item<bool>());
                  const auto [begun, ended] = pending[static_cast<size_t>(i)]->span();
                  EXPECT_GT(ended, begun);
                }
              }).all_succeeded());
}

TEST(OperationLog, KeepsTheLastAndAllThatAreOpen) {
  OperationLog log;
  const int64_t open = log.begin("all-reduce", "never ends", 10);
  for (int i = 0; i < 200; ++i) log.end(log.begin("broadcast", "short", 1));
  EXPECT_EQ(log.last().size(), OperationLog::kKept);
  ASSERT_TRUE(log.oldest_open().has_value());
  EXPECT_EQ(log.oldest_open()->sequence, open);
  log.at_step(7);
  log.begin("all-gather", "newest", 1);
  EXPECT_EQ(log.position(), "202 7 all-gather 'newest'");
  EXPECT_NE(log.text().find("OPEN"), std::string::npos);
}

}  // namespace
}  // namespace polysketch::test
