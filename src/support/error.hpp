// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace polysketch {

/// What the process returns. BSD sysexits where they fit; the meaning of each is part of the
/// command line's contract.
enum class ExitCode : int {
  done = 0,
  usage = 64,          ///< wrong command line
  bad_data = 65,       ///< data or tokenizer cannot be used
  missing_input = 66,  ///< a file that should be read does not exist
  internal = 70,       ///< a defect of this program
  resources = 71,      ///< memory, processes or threads ran out
  /// an output file or folder cannot be made, or another process owns the run folder
  cannot_create = 73,
  io = 74,           ///< reading or writing failed
  stopped = 75,      ///< stopped on request, checkpoint saved: start the same command again
  distributed = 76,  ///< another process is gone or unreachable
  permission = 77,
  config = 78,         ///< the configuration is wrong
  numeric = 80,        ///< loss or gradient is not finite
  no_checkpoint = 81,  ///< checkpoints exist but none can be loaded
  hardware = 82,       ///< replicas disagree: suspected hardware fault
};

/// A mistake the user can mend. The text is one line (several for a list of configuration errors):
/// what, where, what to do. main() prints `ERROR <code>: <text>` and exits with the code; nothing
/// else of the program writes it.
class UserError : public std::runtime_error {
 public:
  UserError(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// A broken promise between two parts of this program. Exit code 70.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws InternalError with the text when the condition does not hold. Never for user mistakes.
inline void require(bool condition, const char* message) {
  if (!condition) throw InternalError(message);
}

}  // namespace polysketch
