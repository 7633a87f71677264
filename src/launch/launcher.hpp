// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "launch/rank_end.hpp"

namespace polysketch {

struct LaunchOptions {
  /// path of the program, then its words: the same for every rank
  std::vector<std::string> command;
  int64_t local_world = 1;           ///< ranks on this machine, the same number on every machine
  int64_t nodes = 1, node_rank = 0;  ///< machines of the run, and which of them this is
  std::string host =
      "127.0.0.1";   ///< where rank 0 is found; what the other machines can reach if there are any
  int64_t port = 0;  ///< 0: a free one, anew at each attempt; only if this is the only machine
  int64_t max_restarts = 0;
  RestartRule restart_on;
  double grace =
      30;  ///< seconds between SIGTERM and SIGKILL for the ranks that are left when one has failed
  double stop_grace =
      600;  ///< seconds in which ranks that were asked to stop must have saved and ended
  double restart_pause =
      1;  ///< seconds before the first restart; doubled for each further one, at most 30 times this
  /// every rank's output also goes to rank-N.log there, appended; empty: no
  std::filesystem::path log_folder;
  /// The command prints one document (--json): standard output is that of rank 0, byte for byte, of
  /// the attempt that was the last; what else comes goes to standard error.
  bool document = false;
};

/// Starts `local_world` processes of the command with the variables of torchrun (see find_place),
/// POLYSKETCH_ATTEMPT, and OMP_NUM_THREADS as each one's share of the processors unless that is set
/// already; and takes care of them until all have ended.
///
/// * Every line of their standard output and error comes out of this process's own, whole, behind
///   `[rank] `.
/// * Every signal that asks for an end (stop_signals()) is passed on once, SIGHUP as SIGTERM: the
///   ranks finish the step and save. A second one that insists() kills them.
/// * When one rank fails the others are ended (SIGTERM, after `grace` SIGKILL) and the group is
///   started anew, up to `max_restarts` times,
/// if
///   `restart_on` allows that and nobody asked for a stop.
/// * No process is left behind: ranks and what they started are killed with the group, also if this
///   process is killed by SIGKILL.
///
/// Returns what the program should exit with: see GroupEnd; 128 + n after a second signal n. A
/// failure is written to standard error as `ERROR <code>: …` with rank, process, machine and how it
/// ended.
///
/// The calling thread must be the only one that takes signals; it gets their mask and effects back.
/// Throws UserError if the options contradict each other (64), a process cannot be started, or the
/// log folder not be made (73).
int launch(const LaunchOptions& options);

}  // namespace polysketch
