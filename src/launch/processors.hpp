// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace polysketch {

/// Processors that this process may keep busy: those it may run on, at most what the quota of its
/// control group is worth (rounded up). quota: where the group's is told. Inside a container that
/// is the container's own; the root group of a machine has no such file.
int64_t usable_processors(const std::string& quota = "/sys/fs/cgroup/cpu.max");

/// Compute threads for each of some processes that share processors: all together at most one a
/// processor, but at least one each.
inline int64_t threads_each(int64_t processors, int64_t processes) {
  return std::max<int64_t>(1, processors / processes);
}

}  // namespace polysketch
