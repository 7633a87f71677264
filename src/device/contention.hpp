// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace polysketch {

// Compute threads meet thousands of times in a step. One that waits for the others spins for some
// milliseconds before it sleeps, which is fastest where each has a processor to itself. Where other
// programs want the processors too, it keeps those it waits for from running: two threads were then
// a hundred times slower than one.

/// Seconds for which the threads of this process were ready to run and had no processor, since they
/// began; of each thread, by its folder's name. From task/*/schedstat under `process`, where the
/// kernel keeps it; else empty.
std::map<std::string, double> waited_for_processors(
    const std::filesystem::path& process = "/proc/self");

/// Whether the processors are contended, from one interval after the other.
class ContentionGauge {
 public:
  explicit ContentionGauge(int64_t threads) : threads_(threads) {}
  /// Seconds that threads waited for a processor, all together, in `elapsed` seconds.
  void add(double waited, double elapsed);
  /// From an interval in which a thread waited for a tenth of it on average until some seconds in
  /// which that was much less.
  bool contended() const { return contended_; }
  /// Seconds without a break for which it has been so, and the share of them that a thread waited.
  double seconds() const { return seconds_; }
  double share() const;

 private:
  int64_t threads_;
  bool contended_ = false;
  double seconds_ = 0, waited_ = 0, calm_ = 0;
};

/// From now on a thread of its own watches, and while processors are contended the compute threads
/// sleep when they wait for one another. What is computed does not change, and where nothing else
/// runs nothing does. A line in the log, once, if it lasts. To be called when the number of compute
/// threads is set; further calls do nothing.
void watch_contention();

}  // namespace polysketch
