// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>

namespace polysketch {

/// How one process of a group ended.
struct RankEnd {
  int64_t rank = 0;
  pid_t process = 0;
  int code = 0;        ///< what it returned; meaningless if a signal ended it
  int signal = 0;      ///< the signal that ended it, 0 if it returned
  std::set<int> sent;  ///< signals that the launcher had sent it before
  double seconds = 0;  ///< how long it ran

  /// As a shell says it: the code, or 128 + the signal.
  int shell_code() const { return signal != 0 ? 128 + signal : code; }
  /// One of the launcher's signals ended it, directly or by the program's "a second signal ends the
  /// process with 128 + n".
  bool ended_by_launcher() const;
  /// Neither done (0), nor stopped with everything saved (75), nor ended by the launcher.
  bool failed() const;
};

/// "was killed by signal 9 (Killed) after 12 s", "ended with code 78 (wrong configuration) after 1
/// s".
std::string describe(const RankEnd& end);

/// What came of a group.
struct GroupEnd {
  int code = 0;  ///< for the launcher to return
  /// who failed first by its own fault; nobody if all are done or were stopped
  std::optional<RankEnd> culprit;
};

/// ends: of all ranks, in the order in which they were seen. Who failed is the first rank that
/// failed with another code than 76, since 76 says that somebody else is gone; if there is none,
/// the first with 76 that did not follow a rank which the launcher itself ended. Without a failure
/// the code is 75 if any rank returned that, else that of the first rank that the launcher ended,
/// else 0.
GroupEnd judge(std::span<const RankEnd> ends);

/// After which ends a group is worth starting again. A signal that asks for an end (stop_signals())
/// is none of them, whoever sent it.
struct RestartRule {
  bool signals = true;  ///< killed by a signal: memory, a crash, a machine's operator
  /// defect (devices and drivers show like that), input or output, another process gone
  std::set<int> codes{70, 74, 76};
  bool allows(const RankEnd& end) const;
};

/// "signal,70,74,76" or "none". Throws UserError 64.
RestartRule parse_restart_rule(const std::string& text);

}  // namespace polysketch
