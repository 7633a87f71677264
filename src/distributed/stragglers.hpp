// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "distributed/world.hpp"

namespace polysketch {

/// Finds the process that holds the others up, from numbers that all have agreed on (StepFacts), so
/// that all come to the same result at the same step.
///
/// Slow computing shows in `computing`. A slow link shows nowhere in particular, since all wait for
/// each other: when the time spent in exchanges grows, the links of a ring are tried one by one.
class Stragglers {
 public:
  /// factor: how many times slower than the median is slow; 0 never looks.
  Stragglers(World& world, double factor);

  /// After each step; `exchanging` is the shortest time that a process spent in exchanges: the
  /// slowest process waits for nobody, so that is the time of the exchanges alone. Names the slow
  /// one at most once in a hundred steps. Exchanges (rarely): call it on every process.
  std::optional<std::string> look(const std::vector<double>& computing, double exchanging);

  /// Seconds that 64 KiB there and a byte back take between each process and the next one, [W], W >
  /// 1.
  std::vector<double> probe_links();

 private:
  std::optional<std::string> slow_link();

  World& world_;
  double factor_;
  std::vector<int64_t> slow_steps_;  // in a row, of each process
  double usual_exchange_ = -1;
  int64_t quiet_steps_ = 0, steps_ = 0;
};

}  // namespace polysketch
