// SPDX-License-Identifier: Apache-2.0
#include "distributed/affinity.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <cerrno>
#include <cstring>

#include "support/error.hpp"

namespace polysketch {

std::vector<int> share_of_processors(const std::vector<int>& processors, int64_t local_rank,
                                     int64_t local_world) {
  const auto count = static_cast<int64_t>(processors.size());
  if (count < local_world) return {processors.at(static_cast<size_t>(local_rank % count))};
  const int64_t begin = count * local_rank / local_world,
                end = count * (local_rank + 1) / local_world;
  return {processors.begin() + begin, processors.begin() + end};
}

std::vector<int> bind_to_share(int64_t local_rank, int64_t local_world) {
  cpu_set_t set;
  std::vector<int> all;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) all.push_back(i);
    }
  }
  if (all.empty()) return {};
  const std::vector<int> own = share_of_processors(all, local_rank, local_world);
  CPU_ZERO(&set);
  for (const int i : own) CPU_SET(i, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) {
    throw UserError(
        ExitCode::permission,
        fmt::format("distributed.bind_cpus: the system does not allow it ({}): set it to false",
                    std::strerror(errno)));
  }
  return own;
}

}  // namespace polysketch
