// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "device/device.hpp"
#include "distributed/affinity.hpp"
#include "distributed/world.hpp"
#include "launch/processors.hpp"
#include "support/log.hpp"

namespace polysketch {

std::unique_ptr<World> join_launched_world(const DistributedConfig& config,
                                           const std::string& device, int64_t threads,
                                           const std::function<void(const Place&)>& check) {
  const Place place = find_place(process_environment());
  if (!place.note.empty()) log_warning(place.note);
  if (check) check(place);
  if (place.rank > 0) set_log_level(LogLevel::warning);
  if (place.source != "none") {
    if (config.bind_cpus) bind_to_share(place.local_rank, place.local_world);
    if (threads == 0 && place.local_world > 1 && !config.bind_cpus)
      threads = threads_each(usable_processors(), place.local_world);
  }
  at::Device own = open_device(device, threads);
  // One GPU a process; a device that was named is taken as it is, by all.
  if (own.is_cuda() && place.local_world > 1 && (device == "cuda" || device == "auto")) {
    own = open_device(fmt::format("cuda:{}", place.local_rank), threads);
  }
  return World::join({.place = place, .config = config, .device = own});
}

}  // namespace polysketch
