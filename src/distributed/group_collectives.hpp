// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "distributed/collectives.hpp"

namespace polysketch {

/// Exchanges over two groups of c10d: one for tensors, one on the host for the small things. Two,
/// so that a short message never queues behind a large one, and so that NCCL and the host do not
/// wait for each other.
struct GroupOptions {
  c10::intrusive_ptr<c10d::Backend> tensors, host;
  std::string transport;
  std::shared_ptr<OperationLog> log;
  /// Called with what went wrong when an exchange failed; throws UserError 76.
  std::function<void(const OperationRecord& record, const std::string& error)> fail;
  /// Seconds that an exchange may take, now.
  std::function<double()> limit;
};
std::unique_ptr<Collectives> make_group_collectives(GroupOptions options);

}  // namespace polysketch
