// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace polysketch {

/// The processes that keep the checkpoints of one run together, and how they talk. One process
/// alone needs no all_gather.
struct Peers {
  int64_t rank = 0, world = 1;
  /// Gives every process the texts (any bytes) of all, in order of rank; so it is a barrier too.
  /// Every process calls it the same number of times. Throws UserError 76 where a process is gone;
  /// that goes through this folder untouched.
  std::function<std::vector<std::string>(const std::string& text)> all_gather;
  /// How long a network file system may take to show one process what another has written. In a
  /// group of which one has died, another may wait this long for files that will not come before it
  /// notices.
  double patience_seconds = 5;

  bool first() const { return rank == 0; }
};

/// Runs `action` on every process and gives every process the results of all, in order of rank. If
/// it failed anywhere, all throw the same UserError: code and text of the first that failed, with
/// its rank and host. The action itself must not exchange anything: a process whose action failed
/// early would leave the others waiting. One process alone just runs the action; what it throws is
/// thrown.
std::vector<std::string> exchange(const Peers& peers, const std::function<std::string()>& action);

/// The same for an action without a result.
void together(const Peers& peers, const std::function<void()>& action);

/// Asks again and again until the answer is yes or the patience of `peers` is over. False: never.
bool becomes_true(const Peers& peers, const std::function<bool()>& condition);

}  // namespace polysketch
