// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace polysketch {

/// A bar with rate and ETA on standard error for work that takes more than a second. Shows nothing
/// where standard error is no terminal, so log files stay free of it (there, a plain line every 30
/// s instead). Redrawn at most 10 times a second. Thread-safe.
class ProgressBar {
 public:
  /// unit: what is counted ("steps", "tokens", "B" for bytes); total 0: unknown.
  ProgressBar(std::string title, int64_t total, std::string unit);
  ~ProgressBar();  ///< erases the bar
  void update(int64_t done, const std::string& note = {});
  void set_total(int64_t total);

 private:
  struct State;
  State* state_;
};

}  // namespace polysketch
