// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace polysketch {

/// What a run does about saves that fail for want of space or permission, or in reading or writing
/// (exit codes 73, 74, 77): the first is a warning and training goes on, for the older checkpoints
/// stand; the second in a row ends the run.
class SaveAttempts {
 public:
  /// speaks: whether this process writes the warning; of several with the same result one should.
  explicit SaveAttempts(bool speaks = true) : speaks_(speaks) {}

  /// Runs one save. False if it failed and the run may go on. Throws UserError 74 for the second
  /// failure in a row; errors of other kinds go through.
  bool attempt(int64_t step, const std::function<void()>& save);
  bool failed_before() const { return failed_before_; }  ///< the last one did

 private:
  bool speaks_;
  bool failed_before_ = false;
};

}  // namespace polysketch
