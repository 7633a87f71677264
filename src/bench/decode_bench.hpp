// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/attention_bench.hpp"

namespace polysketch {

struct DecodeBenchOptions {
  /// `lengths` are positions; limit_seconds is of building a state and of one measurement each
  AttentionBenchOptions common;
  int64_t tokens =
      0;  ///< of one measurement; 0: a block where the state is constant, 64 where it grows
};

/// One mechanism that writes token after token from a position on.
struct DecodeFigures {
  std::string kind;
  int64_t position = 0;     ///< tokens before the first one that is timed
  std::string left_out;     ///< why nothing was measured; empty: everything below was
  int64_t tokens = 0;       ///< of one measurement
  CallTime token;           ///< seconds of one token of all B sequences, over the rounds
  int64_t state_bytes = 0;  ///< of all B sequences, at the position
};

/// Steps that `progress` counts up to.
int64_t progress_steps(const DecodeBenchOptions& options);

/// One layer's recurrent form (Attention::step) on random q, k, v: the state is made by prefill,
/// then every round times `tokens` tokens, each going on where the last one ended; kinds and
/// positions take turns. The open block of a linear kind fills and empties, and a token costs more
/// the fuller it is: over a whole block every position has the same average.
std::vector<DecodeFigures> bench_decode(const DecodeBenchOptions& options);

/// A row for each kind and position.
std::string decode_bench_table(const std::vector<DecodeFigures>& figures);
nlohmann::ordered_json decode_bench_json(const DecodeBenchOptions& options,
                                         const std::vector<DecodeFigures>& figures);

}  // namespace polysketch
