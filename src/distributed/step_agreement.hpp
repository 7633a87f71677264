// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "distributed/collectives.hpp"

namespace polysketch {

/// What a process knows of a step and all must know before the update. Exchanged as one short
/// message, so that every decision (stop, save, refuse the update) is taken by all processes from
/// the same numbers, never from what one of them alone has seen.
struct StepFacts {
  StepFacts(int64_t world, int64_t slots)
      : nats(static_cast<size_t>(slots)),
        computing(static_cast<size_t>(world)),
        waiting(computing) {}

  std::vector<double>
      nats;             ///< sums of the loss; each process fills its own slots, the others' are 0
  uint64_t digest = 0;  ///< of the windows; added up modulo 2^64
  bool stop = false;    ///< somebody was asked to stop
  bool save = false;    ///< by the clock of rank 0
  bool failed = false;  ///< somebody could not compute its part: the step does not count
  std::vector<double> computing;  ///< [W] seconds of each process without waiting for others
  std::vector<double> waiting;    ///< [W] seconds each process waited for data

  double total_nats() const;  ///< slots added up in order
};

/// The facts of all together: slots side by side, digests added, flags of any. Exact: no sum has
/// more than one term that is not 0, or is of whole numbers below 2^53.
StepFacts agree(Collectives& collectives, const StepFacts& own);

}  // namespace polysketch
