// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace polysketch {

// What an optimiser step costs on many GPUs: a prediction from a few numbers. docs/cluster-cost.md
// has the formulas in one place, the assumptions and what is left out. Seconds, bytes and bytes a
// second throughout; no LibTorch.

/// What one member of a ring sends to the next and receives from the one before, at the same time:
/// a message of n bytes takes latency + n / bandwidth (Hockney 1994: alpha and 1 / beta).
struct Link {
  double latency = 0;
  double bandwidth = std::numeric_limits<double>::infinity();  ///< of one direction
};

enum class Route {
  /// reduced inside each node, then between nodes each part by the GPUs that hold it, then spread
  /// inside each node
  hierarchical,
  ring,  ///< one ring through all GPUs: every message waits for the slower link
};

struct Cluster {
  int64_t nodes = 1;
  int64_t gpus = 1;  ///< of a node
  Link inside;       ///< from a GPU to another of its node
  Link between;      ///< of a whole node to the others: its GPUs share it
  Route route = Route::hierarchical;
  int64_t world() const { return nodes * gpus; }
};

/// Half an all-reduce round a ring of n: n - 1 messages of S/n bytes, (n - 1)·(latency + S / (n ·
/// bandwidth)); 0 for n = 1 (Thakur, Rabenseifner, Gropp 2005; Patarasuk, Yuan 2009; the arithmetic
/// of the sums is not counted).
double ring_pass_seconds(int64_t members, const Link& link, double bytes);

/// Reduce-scatter of a vector of S bytes, and as much again for the all-gather of one; all-reduce
/// is both. Hierarchical: a pass of S bytes inside the node, then of the S/gpus that each GPU holds
/// between nodes at 1/gpus of the node's bandwidth.
double reduce_scatter_seconds(const Cluster& cluster, double bytes);
double all_gather_seconds(const Cluster& cluster, double bytes);
double all_reduce_seconds(const Cluster& cluster, double bytes);

/// One measured exchange: an all-reduce has two passes, a reduce-scatter or an all-gather one.
/// bytes: of the whole vector.
struct MeasuredExchange {
  int passes = 2;
  double bytes = 0;
  double seconds = 0;
};

struct LinkFit {
  Link link;
  double error = 0;  ///< root of the mean square of (predicted / measured - 1)
};

/// The link that explains exchanges measured round a ring of `members` best: least squares of the
/// relative deviation in passes · ring_pass_seconds, with no latency where the best one would be
/// negative. Needs members >= 2 and two different sizes of vectors; a bandwidth below zero (seconds
/// that fall with size) throws UserError 65.
LinkFit fit_link(int64_t members, const std::vector<MeasuredExchange>& exchanges);

/// A piece of the backward pass of the last micro-batch, and how many numbers each gradient has
/// that is complete after it.
struct BackwardPiece {
  double seconds = 0;
  std::vector<int64_t> gradients;
};

/// How gradients travel: as GradientReducer, CanonicalReduction and the sharded AdamW do it.
struct ReductionPlan {
  int64_t bucket_elements =
      0;  ///< of each bucket but the last; a bucket ends in the middle of a gradient if need be
  int64_t unit =
      1;  ///< the whole is padded to a multiple of this; the padding travels in the first bucket
  double element_bytes = 4;  ///< of a number on its way
  bool sharded = false;  ///< reduce-scatter now and an all-gather of the masters (fp32) after the
                         ///< optimiser, instead of all-reduce
  /// M: instead, after backward, an all-gather of M gradients; 0: no canonical reduction
  int64_t canonical_shards = 0;
  /// speed of exchanges while backward still runs, as a share of their speed alone; 0: they wait
  /// for its end
  double overlap = 1;
};

/// Gradients that travel together. Times count from the start of the last micro-batch's backward.
struct Bucket {
  int64_t elements = 0;
  double ready = 0;  ///< its last gradient is complete
  double start = 0;  ///< ready, and the bucket before is through
  double end = 0;
};

/// Buckets in the order in which they are ready, on one channel: each starts when it is ready and
/// the channel is free.
std::vector<Bucket> simulate_reduction(const std::vector<BackwardPiece>& backward,
                                       const ReductionPlan& plan, const Cluster& cluster);

struct StepWork {
  double before = 0;  ///< seconds of everything before the last micro-batch's backward
  std::vector<BackwardPiece> backward;
  double optimizer = 0;  ///< seconds
};

struct StepCost {
  double compute = 0;  ///< forward and backward of all micro-batches
  /// of the gradients: what the buckets would take with nothing else going on
  double communication = 0;
  double hidden = 0;   ///< part of it that runs while backward does
  double exposed = 0;  ///< the rest: the channel's time after backward
  double gather = 0;   ///< of the parameters, if sharded
  double optimizer = 0;
  double step = 0;  ///< compute + exposed + optimizer + gather
  std::vector<Bucket> buckets;
};

StepCost step_cost(const StepWork& work, const ReductionPlan& plan, const Cluster& cluster);

/// Bytes that one optimiser step of the program reads and writes on the GPU
/// (src/training/adamw.cpp): for a number of this process's share 4 for the norm, 16 read and 12
/// written by AdamW; for every number 4 to clear its gradient, and 6 for the bf16 copy of a master.
double optimizer_bytes(int64_t parameters, bool bf16, int64_t shards);

/// Memory of one GPU.
struct GpuMemory {
  int64_t weights = 0, gradients = 0, optimizer = 0, activations = 0;
  int64_t total() const { return weights + gradients + optimizer + activations; }
};
/// shards: among how many processes moments (and, in bf16, masters) are cut up; 1: each has all.
/// kept_gradients: of canonical reduction, its shards on one process; else 0.
GpuMemory gpu_memory(int64_t parameters, bool bf16, int64_t activation_bytes, int64_t shards,
                     int64_t kept_gradients = 0);

}  // namespace polysketch
