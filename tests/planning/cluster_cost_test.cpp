// SPDX-License-Identifier: Apache-2.0
// The cost model of many GPUs against what can be worked out by hand.
#include "planning/cluster_cost.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "model/cost.hpp"
#include "model/transformer.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

Cluster cluster(int64_t nodes, int64_t gpus, Link inside, Link between,
                Route route = Route::hierarchical) {
  return {.nodes = nodes, .gpus = gpus, .inside = inside, .between = between, .route = route};
}

/// A head, three blocks and an embedding: 10 gradients of 100 numbers and one of 300.
std::vector<BackwardPiece> backward() {
  return {{1.0, {100}},
          {2.0, {100, 100, 100}},
          {2.0, {100, 100, 100}},
          {2.0, {100, 100, 100}},
          {0.0, {300}}};
}

ReductionPlan plan(int64_t bucket_elements) {
  ReductionPlan made;
  made.bucket_elements = bucket_elements;
  return made;
}

TEST(Ring, ByHand) {
  // Four members, 1000 bytes at 50 bytes/s and 0.5 s a message: three messages of 250 bytes.
  EXPECT_DOUBLE_EQ(ring_pass_seconds(4, {0.5, 50}, 1000), 3 * (0.5 + 5));
  EXPECT_EQ(ring_pass_seconds(1, {0.5, 50}, 1000), 0);
  EXPECT_DOUBLE_EQ(ring_pass_seconds(4, {0.5, kInfinite}, 1000), 1.5);
  EXPECT_DOUBLE_EQ(ring_pass_seconds(4, {0, 50}, 1000), 15);
}

TEST(Exchanges, OfOneNode) {
  const Cluster one = cluster(1, 4, {0.5, 50}, {100, 1e-3});
  EXPECT_DOUBLE_EQ(reduce_scatter_seconds(one, 1000), 16.5);
  EXPECT_DOUBLE_EQ(all_gather_seconds(one, 1000), 16.5);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(one, 1000), 33);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(cluster(1, 4, {0.5, 50}, {100, 1e-3}, Route::ring), 1000), 33)
      << "no other node to wait for";
}

TEST(Exchanges, OfNodesOfOneGpu) {
  for (const Route route : {Route::hierarchical, Route::ring}) {
    EXPECT_DOUBLE_EQ(all_reduce_seconds(cluster(4, 1, {100, 1e-3}, {0.5, 50}, route), 1000), 33);
  }
}

TEST(Exchanges, OfTwoNodesOfTwo) {
  // Inside: one message of 500 bytes at 100 bytes/s. Between: each of two GPUs sends half of its
  // 500 bytes, both over the node's 20 bytes/s.
  const Cluster two = cluster(2, 2, {0.25, 100}, {1, 20});
  EXPECT_DOUBLE_EQ(reduce_scatter_seconds(two, 1000), (0.25 + 5) + (1 + 500 / 20.0));
  EXPECT_DOUBLE_EQ(all_reduce_seconds(two, 1000), 2 * (0.25 + 5 + 1 + 25));
  // One ring of four: three messages of 250 bytes, each as slow as the link between nodes.
  EXPECT_DOUBLE_EQ(reduce_scatter_seconds(cluster(2, 2, {0.25, 100}, {1, 20}, Route::ring), 1000),
                   3 * (1 + 250 / 20.0));
  EXPECT_DOUBLE_EQ(reduce_scatter_seconds(cluster(2, 2, {3, 10}, {1, 20}, Route::ring), 1000),
                   3 * (3 + 250 / 10.0))
      << "slower inside";
}

TEST(Exchanges, OfOneProcessCostNothing) {
  for (const Route route : {Route::hierarchical, Route::ring})
    EXPECT_EQ(all_reduce_seconds(cluster(1, 1, {1, 1}, {1, 1}, route), 1e12), 0);
}

struct Cut {
  std::vector<int64_t> elements;
  std::vector<double> ready;
};
Cut cut(const ReductionPlan& made) {
  Cut all;
  for (const Bucket& bucket : simulate_reduction(backward(), made, Cluster{})) {
    all.elements.push_back(bucket.elements);
    all.ready.push_back(bucket.ready);
  }
  return all;
}

TEST(Reduction, BucketsInOrderOfReadiness) {
  const Cut even = cut(plan(250));
  EXPECT_EQ(even.elements, (std::vector<int64_t>{250, 250, 250, 250, 250, 50}))
      << "cut in the middle of gradients";
  EXPECT_EQ(even.ready, (std::vector<double>{3, 5, 7, 7, 7, 7}))
      << "numbers 1-100 at 1, to 400 at 3, to 700 at 5, the rest at 7";
  ReductionPlan padded = plan(250);
  padded.unit = 128;  // 1300 becomes 1408: 108 more in the first bucket
  const Cut more = cut(padded);
  EXPECT_EQ(more.elements, (std::vector<int64_t>{250, 250, 250, 250, 250, 158}));
  EXPECT_EQ(more.ready, (std::vector<double>{3, 3, 5, 7, 7, 7}));
  EXPECT_EQ(cut(plan(1300)).elements, (std::vector<int64_t>{1300}));
  EXPECT_EQ(cut(plan(1299)).elements, (std::vector<int64_t>{1299, 1}));
}

/// What the reducer will really do: the buckets of a model's flat buffers.
TEST(Reduction, BucketsAreThoseOfTheModel) {
  Transformer::Options options;
  options.model.size = ModelSize::custom;
  options.model.layers = 4;
  options.model.width = 128;
  options.model.heads = 2;
  options.model.hidden = 320;
  options.model.vocabulary = 1024;
  options.attention.kind = AttentionKind::softmax;
  for (const int64_t world : {1, 2, 4}) {
    options.sharding = {.rank = 0, .world = world, .bucket_elements = 200'000, .masters = false};
    const Transformer model(options);
    std::vector<BackwardPiece> pieces;
    for (const WorkPiece& piece : work_order(options.model, options.attention, 64).backward)
      pieces.push_back({1, piece.gradients});
    ReductionPlan made = plan(bucket_step(200'000, world));
    made.unit = bucket_unit(world);
    std::vector<int64_t> planned, real;
    for (const Bucket& bucket : simulate_reduction(pieces, made, Cluster{}))
      planned.push_back(bucket.elements);
    for (const FlatRange& bucket : model.parameters().buckets()) real.push_back(bucket.count());
    EXPECT_EQ(planned, real) << world;
    EXPECT_GT(real.size(), 3u);
  }
}

TEST(Reduction, CanonicalTravelsAfterBackward) {
  const Cluster two = cluster(1, 2, {0, 100}, {});
  ReductionPlan made = plan(1'000'000);
  made.canonical_shards = 8;
  const StepCost cost = step_cost({.before = 0, .backward = backward(), .optimizer = 0}, made, two);
  EXPECT_DOUBLE_EQ(cost.communication, 8 * 1300 * 4 / 2 / 100.0)
      << "half of eight gradients in one message";
  EXPECT_DOUBLE_EQ(cost.exposed, cost.communication);
  made.bucket_elements = 100;
  EXPECT_DOUBLE_EQ(
      step_cost({.before = 0, .backward = backward(), .optimizer = 0}, made, two).exposed,
      cost.communication);
}

TEST(Reduction, OneBucketIsExposedWhole) {
  const Cluster two = cluster(1, 2, {0, 100}, {});
  const StepCost cost =
      step_cost({.before = 10, .backward = backward(), .optimizer = 4}, plan(1'000'000), two);
  ASSERT_EQ(cost.buckets.size(), 1u);
  EXPECT_EQ(cost.buckets[0].elements, 1300);
  EXPECT_DOUBLE_EQ(cost.communication, 52) << "two messages of 2600 bytes at 100 bytes/s";
  EXPECT_DOUBLE_EQ(cost.exposed, 52);
  EXPECT_DOUBLE_EQ(cost.hidden, 0);
  EXPECT_DOUBLE_EQ(cost.compute, 17);
  EXPECT_DOUBLE_EQ(cost.step, 17 + 52 + 4);
}

TEST(Reduction, WaitsForTheChannelAndForBackward) {
  // 400 bytes a gradient of 100 numbers; all-reduce of n bytes between two at 400 bytes/s takes
  // n/400 s: 1 s for 100 numbers.
  const Cluster two = cluster(1, 2, {0, 400}, {});
  const std::vector<BackwardPiece> pieces{{1, {100}}, {0.5, {100}}, {2, {100}}, {0.25, {100}}};
  const StepCost cost =
      step_cost({.before = 0, .backward = pieces, .optimizer = 0}, plan(100), two);
  ASSERT_EQ(cost.buckets.size(), 4u);
  const double starts[] = {1, 2, 3.5, 4.5}, ends[] = {2, 3, 4.5, 5.5};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(cost.buckets[i].start, starts[i]) << i;
    EXPECT_DOUBLE_EQ(cost.buckets[i].end, ends[i]) << i;
  }
  EXPECT_DOUBLE_EQ(cost.exposed, 5.5 - 3.75);
  EXPECT_DOUBLE_EQ(cost.hidden, 4 - 1.75);
}

TEST(Reduction, BesideBackwardAtASharedSpeed) {
  const Cluster two = cluster(1, 2, {0, 400}, {});
  const std::vector<BackwardPiece> pieces{{1, {100}}, {4, {100}}};
  ReductionPlan shared = plan(100);
  shared.overlap = 0.5;  // the first bucket takes 2 s, from 1 to 3
  StepCost cost = step_cost({.before = 0, .backward = pieces, .optimizer = 0}, shared, two);
  EXPECT_DOUBLE_EQ(cost.buckets[0].end, 3);
  EXPECT_DOUBLE_EQ(cost.exposed, 1);
  EXPECT_DOUBLE_EQ(cost.hidden, 1);
  shared.overlap = 0.125;  // half a second's work until backward ends at 5, then the rest alone
  cost = step_cost({.before = 0, .backward = pieces, .optimizer = 0}, shared, two);
  EXPECT_DOUBLE_EQ(cost.buckets[0].end, 5.5);
  EXPECT_DOUBLE_EQ(cost.exposed, 1.5);
  shared.overlap = 0;
  cost = step_cost({.before = 0, .backward = pieces, .optimizer = 0}, shared, two);
  EXPECT_DOUBLE_EQ(cost.exposed, cost.communication) << "nothing hides";
  EXPECT_DOUBLE_EQ(cost.hidden, 0);
}

TEST(Reduction, LimitsOfTheLink) {
  const StepWork work{.before = 3, .backward = backward(), .optimizer = 1};
  const StepCost free = step_cost(work, plan(250), cluster(16, 8, {0, kInfinite}, {0, kInfinite}));
  EXPECT_EQ(free.exposed, 0);
  EXPECT_EQ(free.communication, 0);
  EXPECT_DOUBLE_EQ(free.step, 3 + 7 + 1);
  const StepCost alone = step_cost(work, plan(250), cluster(1, 1, {1, 1}, {1, 1}));
  EXPECT_EQ(alone.communication, 0);
  EXPECT_EQ(alone.exposed, 0);
  // Without latency the bytes alone count, however many buckets there are.
  const Cluster bytes_only = cluster(2, 2, {0, 100}, {0, 20});
  EXPECT_DOUBLE_EQ(step_cost(work, plan(100), bytes_only).communication,
                   step_cost(work, plan(1'000'000), bytes_only).communication);
}

TEST(Reduction, NinetyPercentHiddenWhereBackwardIsLonger) {
  // 40 blocks of 0.1 s, each with a bucket of 0.09 s: only the last one's exchange stands out.
  std::vector<BackwardPiece> pieces(40, {0.1, {36}});
  const StepCost cost = step_cost({.before = 0, .backward = pieces, .optimizer = 0}, plan(36),
                                  cluster(1, 2, {0, 1600}, {}));
  EXPECT_DOUBLE_EQ(cost.communication, 40 * 0.09);
  EXPECT_NEAR(cost.exposed, 0.09, 1e-12);
  EXPECT_GT(cost.hidden / cost.communication, 0.9);
}

TEST(Reduction, ShardedGathersParametersInsteadOfGradients) {
  const Cluster two = cluster(2, 2, {0.25, 100}, {1, 20});
  const StepWork work{.before = 0, .backward = backward(), .optimizer = 1};
  ReductionPlan sharded = plan(1'000'000);
  sharded.sharded = true;
  const StepCost whole = step_cost(work, plan(1'000'000), two),
                 parts = step_cost(work, sharded, two);
  EXPECT_DOUBLE_EQ(parts.communication + parts.gather, whole.communication)
      << "fp32 both ways: the same bytes";
  EXPECT_DOUBLE_EQ(parts.step, 7 + parts.exposed + 1 + parts.gather);
  sharded.element_bytes = 2;  // the masters travel in fp32 nevertheless
  EXPECT_DOUBLE_EQ(step_cost(work, sharded, two).gather, all_gather_seconds(two, 5200));
  // bucket by bucket: the latency of each, 0.25 inside and 1 between
  sharded.bucket_elements = 130;
  EXPECT_DOUBLE_EQ(step_cost(work, sharded, two).gather, all_gather_seconds(two, 5200) + 9 * 1.25);
  EXPECT_EQ(step_cost(work, sharded, Cluster{}).gather, 0);
}

TEST(Reduction, NeverBetterForLess) {
  const StepWork work{.before = 3, .backward = backward(), .optimizer = 1};
  const auto exposed = [&](const Cluster& c, double overlap = 1, double element = 4) {
    ReductionPlan made = plan(250);
    made.overlap = overlap;
    made.element_bytes = element;
    const StepCost cost = step_cost(work, made, c);
    EXPECT_NEAR(cost.hidden + cost.exposed, cost.communication, 1e-9);
    EXPECT_GE(cost.hidden, 0);
    EXPECT_GE(cost.exposed, all_reduce_seconds(c, 50 * element) * (1 - 1e-12))
        << "the last bucket, all of the embedding";
    for (size_t i = 0; i < cost.buckets.size(); ++i) {
      EXPECT_GE(cost.buckets[i].start, cost.buckets[i].ready);
      if (i > 0) {
        EXPECT_GE(cost.buckets[i].start, cost.buckets[i - 1].end) << "one channel";
      }
    }
    return cost.exposed;
  };
  double last = 0;
  for (const double bandwidth : {1e6, 1e4, 3e3, 1e3, 1e2, 1e1}) {
    const double now = exposed(cluster(4, 2, {1e-3, 1e5}, {1e-2, bandwidth}));
    EXPECT_GT(now, last) << bandwidth;
    last = now;
  }
  last = 0;
  for (const double latency : {1e-4, 1e-2, 0.1, 1.0}) {
    const double now = exposed(cluster(4, 2, {1e-3, 1e5}, {latency, 1e3}));
    EXPECT_GT(now, last) << latency;
    last = now;
  }
  last = 0;
  for (const int64_t nodes : {1, 2, 4, 8, 64}) {
    const double now = exposed(cluster(nodes, 2, {1e-3, 1e5}, {1e-2, 1e3}));
    EXPECT_GT(now, last) << nodes;
    last = now;
  }
  last = kInfinite;
  for (const double overlap : {0.0, 0.3, 0.7, 1.0}) {
    const double now = exposed(cluster(4, 2, {1e-3, 1e5}, {1e-2, 1e3}), overlap);
    EXPECT_LT(now, last) << overlap;
    last = now;
  }
  EXPECT_LT(exposed(cluster(4, 2, {1e-3, 1e5}, {1e-2, 1e3}), 1, 2),
            exposed(cluster(4, 2, {1e-3, 1e5}, {1e-2, 1e3})));
}

std::vector<MeasuredExchange> made_up(int64_t members, const Link& link, double noise,
                                      unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<MeasuredExchange> all;
  for (double bytes = 1024; bytes <= 1 << 28; bytes *= 4) {
    for (const int passes : {1, 2}) {
      const double off =
          1 +
          noise *
              (2.0 * static_cast<double>(random()) / static_cast<double>(std::mt19937::max()) - 1);
      all.push_back({passes, bytes, passes * ring_pass_seconds(members, link, bytes) * off});
    }
  }
  return all;
}

TEST(Fit, RecoversTheLink) {
  for (const Link& link : {Link{10e-6, 50e9}, Link{1e-3, 1e8}, Link{30e-6, 2.5e9}}) {
    for (const int64_t members : {2, 3, 16, 128}) {
      const LinkFit exact = fit_link(members, made_up(members, link, 0));
      EXPECT_NEAR(exact.link.latency / link.latency, 1, 1e-9);
      EXPECT_NEAR(exact.link.bandwidth / link.bandwidth, 1, 1e-9);
      EXPECT_LT(exact.error, 1e-9);
      // Each exchange up to 5 % off: the mean of some ten that are ruled by latency, and as many by
      // bandwidth, is closer than that.
      const LinkFit noisy = fit_link(members, made_up(members, link, 0.05));
      EXPECT_NEAR(noisy.link.latency / link.latency, 1, 0.05);
      EXPECT_NEAR(noisy.link.bandwidth / link.bandwidth, 1, 0.05);
      EXPECT_GT(noisy.error, 0.01);
      EXPECT_LT(noisy.error, 0.05);
    }
  }
}

TEST(Fit, NoNegativeLatency) {
  // A line through these has a negative value at zero bytes.
  const LinkFit fit = fit_link(2, {{1, 1000, 1.0}, {1, 2000, 3.0}});
  EXPECT_EQ(fit.link.latency, 0);
  EXPECT_GT(fit.link.bandwidth, 0);
  EXPECT_THROW(fit_link(2, {{1, 1000, 3.0}, {1, 2000, 1.0}}), UserError) << "faster for more bytes";
  EXPECT_THROW(fit_link(1, made_up(2, {1e-3, 1e8}, 0)), InternalError);
  EXPECT_THROW(fit_link(2, {{1, 1000, 1.0}, {2, 1000, 2.0}}), InternalError) << "one size";
}

TEST(Optimizer, BytesByHand) {
  EXPECT_DOUBLE_EQ(optimizer_bytes(1000, false, 1), 36'000)
      << "4 norm, 16 read, 12 written, 4 cleared";
  EXPECT_DOUBLE_EQ(optimizer_bytes(1000, true, 1), 42'000);
  EXPECT_DOUBLE_EQ(optimizer_bytes(1000, true, 4), 32'000 / 4.0 + 10'000)
      << "every gradient is cleared, every copy made";
}

TEST(Memory, WithAndWithoutShards) {
  const GpuMemory whole = gpu_memory(1000, true, 77, 1), parts = gpu_memory(1000, true, 77, 8),
                  single = gpu_memory(1000, false, 77, 8);
  EXPECT_EQ(whole.total(), 6000 + 4000 + 8000 + 77);
  EXPECT_EQ(parts.total(), 2000 + 500 + 4000 + 1000 + 77);
  EXPECT_EQ(single.total(), 4000 + 4000 + 1000 + 77) << "the masters compute";
  EXPECT_EQ(gpu_memory(1000, true, 77, 1, 4).total(), whole.total() + 4 * 4000)
      << "canonical reduction keeps its shards' gradients";
}

}  // namespace
}  // namespace polysketch
