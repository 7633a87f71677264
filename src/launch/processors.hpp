// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace polysketch {

/// Processors that this process may keep busy: those it may run on, at most what the quota of its control group is worth (rounded up).
int64_t usable_processors();

/// Compute threads for each of some processes that share processors: all together at most one a processor, but at least one each.
inline int64_t threads_each(int64_t processors, int64_t processes) { return std::max<int64_t>(1, processors / processes); }

}  // namespace polysketch
