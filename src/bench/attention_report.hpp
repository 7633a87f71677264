// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/attention_bench.hpp"
#include "reporting/svg_plot.hpp"

namespace polysketch {

/// From which length on a kind takes less time than softmax, forward and backward.
struct Crossover {
  enum class Found {
    between,          ///< two lengths that were measured
    at_the_shortest,  ///< it is faster at every length that was measured
    not_reached,
    unknown,  ///< no length at which both were measured
  };
  std::string kind;
  Found found = Found::unknown;
  double length = 0;    ///< `between`: where the logarithm of the ratio, linear in log T, is 0;
                        ///< `at_the_shortest`: that length
  int64_t longest = 0;  ///< the longest length at which both were measured
};

/// One for each kind but softmax, in the order of the figures. A kind that is faster, then slower
/// again crosses where it is faster for good. Empty without softmax.
std::vector<Crossover> find_crossovers(const std::vector<AttentionFigures>& figures);

/// Device, instruction sets, which softmax attention LibTorch has chosen, shape.
std::string attention_bench_heading(const AttentionBenchOptions& options);

/// The same and every figure. With crossovers: those too.
nlohmann::ordered_json attention_bench_json(const AttentionBenchOptions& options,
                                            const std::vector<AttentionFigures>& figures);
nlohmann::ordered_json crossover_json(const AttentionBenchOptions& options,
                                      const std::vector<AttentionFigures>& figures);

/// A row for each kind and length.
std::string attention_bench_table(const std::vector<AttentionFigures>& figures);

/// As the paper's Figure 1: a row for each length, a column for each kind, microseconds per token;
/// then where softmax is overtaken, and why figures are missing.
std::string crossover_table(const std::vector<AttentionFigures>& figures);

/// The same as a picture.
Plot crossover_plot(const std::vector<AttentionFigures>& figures);

}  // namespace polysketch
