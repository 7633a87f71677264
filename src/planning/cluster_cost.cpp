// SPDX-License-Identifier: Apache-2.0
#include "planning/cluster_cost.hpp"

#include <algorithm>
#include <cmath>

#include "support/error.hpp"

namespace polysketch {

double ring_pass_seconds(int64_t members, const Link& link, double bytes) {
  const double n = static_cast<double>(members);
  return (n - 1) * (link.latency + bytes / (n * link.bandwidth));
}

double reduce_scatter_seconds(const Cluster& cluster, double bytes) {
  if (cluster.route == Route::ring) {
    Link slower = cluster.nodes == 1 ? cluster.inside : cluster.between;
    if (cluster.gpus > 1) {  // at nodes of one GPU there is nothing inside
      slower.latency = std::max(slower.latency, cluster.inside.latency);
      slower.bandwidth = std::min(slower.bandwidth, cluster.inside.bandwidth);
    }
    return ring_pass_seconds(cluster.world(), slower, bytes);
  }
  const double gpus = static_cast<double>(cluster.gpus);
  const Link share{cluster.between.latency, cluster.between.bandwidth / gpus};
  return ring_pass_seconds(cluster.gpus, cluster.inside, bytes) +
         ring_pass_seconds(cluster.nodes, share, bytes / gpus);
}

double all_gather_seconds(const Cluster& cluster, double bytes) {
  return reduce_scatter_seconds(cluster, bytes);
}

double all_reduce_seconds(const Cluster& cluster, double bytes) {
  return reduce_scatter_seconds(cluster, bytes) + all_gather_seconds(cluster, bytes);
}

LinkFit fit_link(int64_t members, const std::vector<MeasuredExchange>& exchanges) {
  require(members >= 2, "fit_link: one process alone has no link");
  // seconds = latency · a + b / bandwidth, both sides divided by the seconds.
  double aa = 0, ab = 0, bb = 0, a1 = 0, b1 = 0;
  const double n = static_cast<double>(members);
  const auto row = [&](const MeasuredExchange& one) {
    const double messages = one.passes * (n - 1) / one.seconds;
    return std::pair(messages, messages * one.bytes / n);
  };
  for (const MeasuredExchange& one : exchanges) {
    const auto [a, b] = row(one);
    aa += a * a, ab += a * b, bb += b * b, a1 += a, b1 += b;
  }
  const double determinant = aa * bb - ab * ab;
  require(determinant > 1e-12 * aa * bb, "fit_link: needs exchanges of two sizes");
  double latency = (a1 * bb - b1 * ab) / determinant, inverse = (b1 * aa - a1 * ab) / determinant;
  if (latency < 0) {
    latency = 0;
    inverse = b1 / bb;
  }
  if (!(inverse > 0)) {
    throw UserError(ExitCode::bad_data,
                    "the measured exchanges take no longer for more bytes, so they say nothing of "
                    "the bandwidth: measure larger sizes");
  }
  LinkFit fit{{latency, 1 / inverse}, 0};
  for (const MeasuredExchange& one : exchanges) {
    const auto [a, b] = row(one);
    fit.error += std::pow(latency * a + inverse * b - 1, 2) / static_cast<double>(exchanges.size());
  }
  fit.error = std::sqrt(fit.error);
  return fit;
}

namespace {

double exchange_seconds(const ReductionPlan& plan, const Cluster& cluster, int64_t elements) {
  const double numbers = static_cast<double>(elements);
  if (plan.canonical_shards > 0)
    return all_gather_seconds(cluster, static_cast<double>(plan.canonical_shards) * numbers * 4);
  return plan.sharded ? reduce_scatter_seconds(cluster, numbers * plan.element_bytes)
                      : all_reduce_seconds(cluster, numbers * plan.element_bytes);
}

std::vector<Bucket> cut(const std::vector<BackwardPiece>& backward, const ReductionPlan& plan) {
  require(plan.bucket_elements > 0 && plan.unit > 0, "simulate_reduction: a bucket has no size");
  int64_t all = 0;
  for (const BackwardPiece& piece : backward) {
    for (const int64_t elements : piece.gradients) all += elements;
  }
  std::vector<Bucket> buckets;
  Bucket open{.elements = (all + plan.unit - 1) / plan.unit * plan.unit - all};
  double now = 0;
  for (const BackwardPiece& piece : backward) {
    now += piece.seconds;
    for (int64_t left : piece.gradients) {
      while (left > 0) {
        if (open.elements >= plan.bucket_elements) {
          buckets.push_back(open);
          open = {};
        }
        const int64_t taken = std::min(left, plan.bucket_elements - open.elements);
        open.elements += taken;
        open.ready = now;
        left -= taken;
      }
    }
  }
  if (open.elements > 0) buckets.push_back(open);
  return buckets;
}

}  // namespace

std::vector<Bucket> simulate_reduction(const std::vector<BackwardPiece>& backward,
                                       const ReductionPlan& plan, const Cluster& cluster) {
  std::vector<Bucket> buckets = cut(backward, plan);
  double backward_end = 0, channel = 0;
  for (const BackwardPiece& piece : backward) backward_end += piece.seconds;
  for (Bucket& bucket : buckets) {
    if (plan.canonical_shards > 0) bucket.ready = backward_end;
    const double work = exchange_seconds(plan, cluster, bucket.elements);
    bucket.start = std::max(bucket.ready, channel);
    const double done_beside = std::max(0.0, backward_end - bucket.start) * plan.overlap;
    bucket.end = work <= done_beside ? bucket.start + (work > 0 ? work / plan.overlap : 0)
                                     : std::max(bucket.start, backward_end) + work - done_beside;
    channel = bucket.end;
  }
  return buckets;
}

StepCost step_cost(const StepWork& work, const ReductionPlan& plan, const Cluster& cluster) {
  StepCost cost;
  cost.buckets = simulate_reduction(work.backward, plan, cluster);
  double backward = 0;
  for (const BackwardPiece& piece : work.backward) backward += piece.seconds;
  for (const Bucket& bucket : cost.buckets) {
    cost.communication += exchange_seconds(plan, cluster, bucket.elements);
    if (plan.sharded)
      cost.gather += all_gather_seconds(cluster, static_cast<double>(bucket.elements) * 4);
  }
  // The channel never rests between the end of backward and that of the last bucket: all are ready
  // then.
  cost.exposed = cost.buckets.empty() ? 0 : std::max(0.0, cost.buckets.back().end - backward);
  cost.hidden = std::max(0.0, cost.communication - cost.exposed);
  cost.compute = work.before + backward;
  cost.optimizer = work.optimizer;
  cost.step = cost.compute + cost.exposed + cost.optimizer + cost.gather;
  return cost;
}

double optimizer_bytes(int64_t parameters, bool bf16, int64_t shards) {
  const double all = static_cast<double>(parameters);
  return all / static_cast<double>(shards) * 32 + all * (4 + (bf16 ? 6 : 0));
}

GpuMemory gpu_memory(int64_t parameters, bool bf16, int64_t activation_bytes, int64_t shards,
                     int64_t kept_gradients) {
  const int64_t share = (parameters + shards - 1) / shards;
  // In fp32 the masters are what computes, so every process needs them whole.
  return {.weights = bf16 ? 2 * parameters + 4 * share : 4 * parameters,
          .gradients = 4 * parameters * (1 + kept_gradients),
          .optimizer = 8 * share,
          .activations = activation_bytes};
}

}  // namespace polysketch
