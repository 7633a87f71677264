// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace polysketch {

/// Adds threads that run `work` to `threads`, for work that any number of them can share: `count`,
/// or as many as the system has left. Throws std::system_error if it has none.
template <class Work>
void start_threads(std::vector<std::thread>& threads, int64_t count, const Work& work) {
  for (int64_t i = 0; i < count; ++i) {
    try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {
      if (threads.empty()) throw;
      return;
    }
  }
}

}  // namespace polysketch
