// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "config/config.hpp"
#include "distributed/collectives.hpp"
#include "model/parameters.hpp"

namespace polysketch {

/// How the gradients of all processes become one in the flat buffer of each. A step adds up one or
/// more sums of micro-batches on each process; every process makes the same calls in the same
/// order.
class GradientExchange {
 public:
  /// Of the last step, in seconds; zeros on a GPU and for a process alone. An exchange counts while
  /// it or one before it is under way.
  struct Times {
    double communication = 0;  ///< during which exchanges were under way
    double exposed = 0;        ///< of that, after backward: what the step waited for
    double hidden_share() const { return communication > 0 ? 1 - exposed / communication : 1; }
  };

  virtual ~GradientExchange() = default;

  /// Sums that this process contributes to a step, one after the other.
  virtual int64_t sums() const { return 1; }

  /// The backward pass that begins now completes the gradients of the step. Returns what it has to
  /// call with each parameter whose gradient is complete, or nothing if nobody wants to know.
  virtual std::function<void(size_t parameter)> last_backward() { return {}; }

  /// A sum is complete in the gradient buffer.
  virtual void sum_complete() {}

  /// Returns when the sums over all processes are there (on a GPU: enqueued).
  virtual void finish() {}

  /// Instead of finish(), where this process could not compute its part: takes part in all that the
  /// others wait for. What is then in the buffers is worth nothing, on any process.
  virtual void finish_without_part() { finish(); }

  virtual Times times() const { return {}; }
};

/// The one that the configuration names: of a process alone, overlapped with backward, or in the
/// canonical order.
std::unique_ptr<GradientExchange> make_gradient_exchange(Parameters& parameters,
                                                         Collectives& collectives,
                                                         const DistributedConfig& config);

}  // namespace polysketch
