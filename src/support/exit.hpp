// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/error.hpp"

namespace polysketch {

/// What main() returns when no error was thrown: `done` unless a command said otherwise (a run that
/// was stopped on request).
inline ExitCode& exit_code_slot() {
  static ExitCode code = ExitCode::done;
  return code;
}
inline void set_exit_code(ExitCode code) { exit_code_slot() = code; }

}  // namespace polysketch
