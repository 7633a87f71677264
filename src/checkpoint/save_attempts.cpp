// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/save_attempts.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "support/error.hpp"
#include "support/log.hpp"

namespace polysketch {

bool SaveAttempts::attempt(int64_t step, const std::function<void()>& save) {
  std::string cause;
  try {
    save();
    failed_before_ = false;
    return true;
  } catch (const UserError& error) {
    const ExitCode code = error.code();
    if (code != ExitCode::io && code != ExitCode::cannot_create && code != ExitCode::permission &&
        code != ExitCode::resources)
      throw;
    cause = error.what();
  } catch (const std::filesystem::filesystem_error& error) {
    cause = error.what();
  }
  if (failed_before_) {
    throw UserError(
        ExitCode::io,
        fmt::format(
            "step {}: the second save in a row has failed: {}; put that right, then start the same "
            "command",
            step, cause));
  }
  failed_before_ = true;
  if (speaks_)
    log_warning(fmt::format(
        "step {}: not saved: {}; older checkpoints stand; a second failure in a row ends the run",
        step, cause));
  return false;
}

}  // namespace polysketch
