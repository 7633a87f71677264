// SPDX-License-Identifier: Apache-2.0
#include "launch/rank_end.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>  // NOLINT: strsignal is POSIX's

#include <algorithm>
#include <charconv>
#include <string_view>

#include "support/error.hpp"
#include "support/stop_signal.hpp"

namespace polysketch {
namespace {

constexpr int kStopped = static_cast<int>(ExitCode::stopped);
constexpr int kDistributed = static_cast<int>(ExitCode::distributed);

/// The signal behind an end: also a shell's or the program's own 128 + n. 0: none.
int signal_behind(const RankEnd& end) {
  if (end.signal != 0) return end.signal;
  return end.code > 128 && end.code <= 128 + SIGRTMAX ? end.code - 128 : 0;
}

const char* meaning(int code) {
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::done:
      return "done";
    case ExitCode::usage:
      return "wrong command line";
    case ExitCode::bad_data:
      return "bad data";
    case ExitCode::missing_input:
      return "input missing";
    case ExitCode::internal:
      return "defect of the program";
    case ExitCode::resources:
      return "out of memory or threads";
    case ExitCode::cannot_create:
      return "cannot create output";
    case ExitCode::io:
      return "read or write failed";
    case ExitCode::stopped:
      return "stopped on request";
    case ExitCode::distributed:
      return "another process is gone";
    case ExitCode::permission:
      return "permission";
    case ExitCode::config:
      return "wrong configuration";
    case ExitCode::numeric:
      return "loss or gradient not finite";
    case ExitCode::no_checkpoint:
      return "no checkpoint can be loaded";
    case ExitCode::hardware:
      return "suspected hardware";
  }
  return "";
}

}  // namespace

bool RankEnd::ended_by_launcher() const {
  const int by = signal_behind(*this);
  return by != 0 && sent.contains(by);
}

bool RankEnd::failed() const {
  return shell_code() != 0 && shell_code() != kStopped && !ended_by_launcher();
}

std::string describe(const RankEnd& end) {
  if (end.signal != 0) {
    return fmt::format("was killed by signal {} ({}) after {:.1f} s", end.signal,
                       ::strsignal(end.signal), end.seconds);
  }
  const std::string known = meaning(end.code);
  return fmt::format("ended with code {}{} after {:.1f} s", end.code,
                     known.empty() ? "" : " (" + known + ")", end.seconds);
}

GroupEnd judge(std::span<const RankEnd> ends) {
  GroupEnd group;
  const auto own_fault = std::find_if(ends.begin(), ends.end(), [](const RankEnd& e) {
    return e.failed() && e.code != kDistributed;
  });
  const auto ended = std::find_if(ends.begin(), ends.end(),
                                  [](const RankEnd& e) { return e.ended_by_launcher(); });
  const auto lost_a_peer =
      std::find_if(ends.begin(), ended, [](const RankEnd& e) { return e.failed(); });
  if (own_fault != ends.end()) {
    group.culprit = *own_fault;
  } else if (lost_a_peer != ended) {
    group.culprit = *lost_a_peer;
  }
  if (group.culprit) {
    group.code = group.culprit->shell_code();
  } else if (std::any_of(ends.begin(), ends.end(),
                         [](const RankEnd& e) { return e.shell_code() == kStopped; })) {
    group.code = kStopped;
  } else if (ended != ends.end()) {
    group.code = ended->shell_code();
  }
  return group;
}

bool RestartRule::allows(const RankEnd& end) const {
  const int by = signal_behind(end);
  if (std::find(stop_signals().begin(), stop_signals().end(), by) != stop_signals().end())
    return false;
  return by != 0 ? signals : codes.contains(end.code);
}

RestartRule parse_restart_rule(const std::string& text) {
  RestartRule rule{false, {}};
  if (text == "none") return rule;
  for (std::string_view rest = text;;) {
    const size_t comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    int code = 0;
    const char* end = word.data() + word.size();
    if (word == "signal") {
      rule.signals = true;
    } else if (!word.empty() && std::from_chars(word.data(), end, code).ptr == end && code >= 1 &&
               code <= 128 && code != kStopped) {
      rule.codes.insert(code);
    } else {
      throw UserError(ExitCode::usage,
                      fmt::format("--restart-on: got '{}', want 'signal', exit codes 1 to 128 but "
                                  "not 75, commas between; or 'none'",
                                  word));
    }
    if (comma == std::string_view::npos) return rule;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace polysketch
