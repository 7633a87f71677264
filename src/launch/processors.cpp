// SPDX-License-Identifier: Apache-2.0
#include "launch/processors.hpp"

#include <sched.h>

#include <fstream>
#include <thread>

namespace polysketch {
namespace {

int64_t allowed_processors() {
  // A fixed cpu_set_t ends at 1024 processors.
  for (size_t count = 1024; count <= (1 << 20); count *= 2) {
    cpu_set_t* set = CPU_ALLOC(count);
    const size_t bytes = CPU_ALLOC_SIZE(count);
    const bool known = ::sched_getaffinity(0, bytes, set) == 0;
    const int64_t allowed = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (known) return std::max<int64_t>(1, allowed);
  }
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

}  // namespace

int64_t usable_processors(const std::string& quota) {
  const int64_t allowed = allowed_processors();
  std::ifstream file(quota);
  int64_t microseconds = 0, period = 0;  // of each period; "max 100000" if there is no limit
  if (!(file >> microseconds >> period) || microseconds <= 0 || period <= 0) return allowed;
  return std::clamp<int64_t>((microseconds - 1) / period + 1, 1, allowed);
}

}  // namespace polysketch
