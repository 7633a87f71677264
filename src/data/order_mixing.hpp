// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "config/config.hpp"
#include "data/segment_source.hpp"

namespace polysketch {

/// Jensen-Shannon divergence of two histograms in nats: 0 for proportional ones, ln 2 for disjoint
/// ones. The shorter one is taken to end in zeros; neither may be all zero.
double jensen_shannon(std::span<const int64_t> a, std::span<const int64_t> b);

/// Adds up how often each id occurs.
void count_ids(std::span<const int32_t> ids, std::vector<int64_t>& histogram);

/// Some consecutive training windows of the first epoch.
struct WindowRange {
  int64_t first = 0, count = 0;
};

/// How well some windows stand for their split, by how often each id occurs in their inputs:
/// Jensen-Shannon divergences from the whole split, nats.
struct OrderMixing {
  WindowRange windows;  ///< as asked for, as far as the epoch has them; none: no figures
  double ordered = 0;
  /// of as many windows drawn from the whole split at random: what no order improves upon
  double random = 0;
};

/// Measures ranges in rising order that do not overlap. Reads the pools up to the last one and the
/// segments that hold the random windows. All tokens must be in the cache. `whole`: the histogram
/// of the split. The source is cancelled afterwards.
std::vector<OrderMixing> measure_mixing(const std::shared_ptr<SegmentSource>& source,
                                        const DataConfig& config, uint64_t seed, int order_version,
                                        std::span<const int64_t> whole,
                                        const std::vector<WindowRange>& ranges);

}  // namespace polysketch
