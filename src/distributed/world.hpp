// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.hpp"
#include "distributed/collectives.hpp"
#include "launch/place.hpp"
#include "support/error.hpp"

namespace polysketch {

/// The processes of a run, connected over NCCL and Gloo, through LibTorch's c10d.
class World {
 public:
  struct Options {
    Place place;
    DistributedConfig config;
    /// on which tensors lie; a GPU: NCCL for them, Gloo for what is on the host
    at::Device device = at::kCPU;
  };

  /// A process alone: no socket is opened.
  static std::unique_ptr<World> alone();

  /// Meets the others at the place and connects with them. Without a launcher's variables: alone().
  /// Within `timeout` seconds it either succeeds or throws UserError 76 saying who is absent or
  /// taken twice, which processes count another number of processes, whether the port is taken or
  /// the host cannot be reached.
  static std::unique_ptr<World> join(const Options& options);

  /// Closes connections after a barrier if all went well. After a failure, or during an exception,
  /// it lets everything lie.
  ~World();

  int64_t rank() const;
  int64_t size() const;
  bool leads() const { return rank() == 0; }
  const Place& place() const;
  at::Device device() const;
  /// Bytes that this process may take: of a CPU its share of what the machine has left.
  int64_t available_memory() const;
  Collectives& collectives();

  /// Compares what must be alike everywhere, as (name, value). Throws UserError 78 on every process
  /// naming the ranks that differ from most.
  void require_alike(const std::vector<std::pair<std::string, std::string>>& facts);

  /// From here on messages name this step, and exchanges are given `step_timeout` once the first is
  /// done. Counted from 1.
  void at_step(int64_t step);

  /// While true exchanges are given `timeout` whatever the step: one process may be busy with a
  /// disk while the others wait.
  void be_patient(bool patient);

  /// Where the last exchanges are written when one fails.
  void dump_into(const std::string& folder);

  /// Tells the others that this process ends by an error of its own, so that they can say so. To be
  /// called before that error leaves.
  void announce_end(ExitCode code, const std::string& reason);

  /// Hosts of all processes.
  const std::vector<std::string>& hosts() const;
  /// "rank 1 (host, process 123)".
  const std::string& name_of(int64_t rank) const;

 private:
  struct State;
  explicit World(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The world of a process as its launcher says (find_place), with a device, threads and processors
/// of its own: of W processes on a machine each gets one GPU, or its share of the processors unless
/// `threads` are given. Lines for people come from rank 0 alone, warnings from all. check is called
/// with the place before anything is connected.
std::unique_ptr<World> join_launched_world(const DistributedConfig& config,
                                           const std::string& device, int64_t threads,
                                           const std::function<void(const Place&)>& check = {});

}  // namespace polysketch
