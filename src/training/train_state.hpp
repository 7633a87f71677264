// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "data/sample_order.hpp"

namespace polysketch {

/// How far an evaluator of a run has come.
struct EvaluationState {
  int64_t last_step = -1;  ///< of its last finished measurement; -1: none
  /// lowest value so far (NaN if the last one before was none), and where
  double best_value = std::numeric_limits<double>::quiet_NaN();
  int64_t best_step = -1;

  /// Notes a measurement. A value that is not a number is never the best, but the first.
  void note(int64_t step, double value);
};

/// Everything of a run that survives a restart besides tensors (masters and both moments). What is
/// not here is a pure function of what is.
struct TrainState {
  /// optimiser updates done; also the steps of Adam's bias correction and of the schedule
  int64_t step = 0;
  /// windows consumed by all processes: the only data cursor
  int64_t sequences = 0;
  int64_t tokens = 0;  ///< sequences · T
  /// of the order of windows; the run keeps the one it began with
  int order_version = kNewestOrder;
  uint64_t digest = 0;  ///< of all consumed windows (BatchStream), modulo 2^64
  std::map<std::string, EvaluationState> evaluations;  ///< by Evaluator::name()

  /// Whether an evaluator that measures after every so many steps (0: never), and after the last,
  /// has to measure now.
  bool is_due(const std::string& evaluator, int64_t every, int64_t last_step) const;

  /// One more step of so many windows.
  void advance(int64_t windows, int64_t window_tokens, uint64_t window_digest);

  nlohmann::json to_json() const;
  /// Also from what earlier versions wrote. Throws UserError 81 when it cannot be read.
  static TrainState from_json(const nlohmann::json& json);
};

/// 16 hexadecimal digits.
std::string digest_text(uint64_t digest);

}  // namespace polysketch
