// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace polysketch {

/// The local_rank-th of local_world nearly equal, consecutive parts of these processors. With fewer
/// processors than processes each gets one, in turn.
std::vector<int> share_of_processors(const std::vector<int>& processors, int64_t local_rank,
                                     int64_t local_world);

/// Keeps this process, and all threads it starts later, on its share of the processors it may use
/// now. Returns them. Throws UserError 77 if the system forbids it.
std::vector<int> bind_to_share(int64_t local_rank, int64_t local_world);

}  // namespace polysketch
