// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "config/config.hpp"
#include "distributed/failure_watch.hpp"
#include "launch/place.hpp"

namespace polysketch {

// How the processes of a run find each other, before anything is exchanged: through c10d's store.

using StorePointer = c10::intrusive_ptr<c10d::Store>;

/// What is known when all have come.
struct Meeting {
  StorePointer store;              ///< with the run's own prefix
  std::vector<std::string> hosts;  ///< in order of rank
  std::vector<std::string> names;  ///< "rank 1 (host, process 123)"
  bool shares_gpu = false;         ///< another process of this machine has the same GPU
};

/// Meets the others at the place, within `config.timeout` seconds. Throws UserError 76 saying who
/// is absent or taken twice, which processes count another number of processes, whether the port is
/// taken or the host cannot be reached.
Meeting meet_others(const Place& place, const DistributedConfig& config, const at::Device& device);

bool serves_store(const Place& place);                      ///< this process does, for all
std::string meeting_name(const Place& place);               ///< "host:29500", or the file
std::string list_ranks(const std::vector<int64_t>& ranks);  ///< "ranks 1, 3"

/// The store as a notice board, over a connection of its own.
std::shared_ptr<NoticeBoard> make_notice_board(const StorePointer& store);

/// The address of this machine from which `host` is reached; "127.0.0.1" for a host on this machine
/// that is called so. Throws UserError 76 if the host's name cannot be resolved.
std::string own_address_towards(const std::string& host, int64_t port);

}  // namespace polysketch
