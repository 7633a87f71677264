// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <nlohmann/json.hpp>

#include "distributed/gradient_exchange.hpp"
#include "model/cost.hpp"
#include "training/step.hpp"

namespace polysketch {

/// What stands in a `step` row of metrics.jsonl besides what the step itself found out.
struct StepFigures {
  double seconds = 0;        ///< the whole step
  double learning_rate = 0;  ///< of its update
  int64_t batch_tokens = 0;
  int64_t processes = 1;
  double peak_flops = 0;  ///< FLOP/s of all devices together; 0: not known
  ModelCost cost;
  GradientExchange::Times exchange;
  int64_t peak_bytes = 0;
  uint64_t digest = 0;  ///< of all windows so far
  int64_t epoch = 0;
};

/// The fields of a `step` event (docs/formats.md), in their order. Pure.
nlohmann::ordered_json step_fields(const StepResult& step, const StepFigures& figures);

}  // namespace polysketch
