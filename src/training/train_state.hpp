// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "data/sample_order.hpp"

namespace polysketch {

/// Everything of a run that survives a restart besides tensors (masters and both moments). What is
/// not here is a pure function of what is.
struct TrainState {
  int64_t step =
      0;  ///< optimiser updates done; also the steps of Adam's bias correction and of the schedule
  int64_t sequences = 0;  ///< windows consumed by all processes: the only data cursor
  int64_t tokens = 0;     ///< sequences · T
  /// of the order of windows; the run keeps the one it began with
  int order_version = kNewestOrder;
  uint64_t digest = 0;           ///< of all consumed windows (BatchStream), modulo 2^64
  int64_t last_validation = -1;  ///< step of the last finished validation
  double best_loss =
      0;  ///< lowest validation loss so far, nats; meaningful once last_validation >= 0

  nlohmann::json to_json() const;
  static TrainState from_json(const nlohmann::json& json);
};

/// 16 hexadecimal digits.
std::string digest_text(uint64_t digest);

}  // namespace polysketch
