// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace polysketch {

/// Where this process stands among those of its run, and where they meet. Known before anything is connected.
struct Place {
  int64_t rank = 0, world = 1;              ///< of all processes of the run
  int64_t local_rank = 0, local_world = 1;  ///< of those on this machine
  std::string host = "127.0.0.1";           ///< where the store is served: by rank 0, or by the launcher if agent_store
  int64_t port = 0;
  std::string file;             ///< meet in this file on a file system that all share, instead of at host and port; empty: no
  bool agent_store = false;     ///< the launcher serves the store (torchrun's agent): no process of the run does
  int64_t attempt = 0;          ///< how often the launcher has started the group anew: part of the store's keys
  std::string source = "none";  ///< whose variables said so: none, torchrun, slurm, mpi, file
};

/// Reads an environment variable; nothing if it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;

/// The place that a launcher's variables tell; a place alone in the world if there are none. Looked for in this order:
///   torchrun  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, TORCHELASTIC_USE_AGENT_STORE,
///   TORCHELASTIC_RESTART_COUNT file      RANK, WORLD_SIZE and POLYSKETCH_STORE=file:PATH mpi       OMPI_COMM_WORLD_*, PMI_*, PMIX_*,
///   MPI_LOCALRANKID … with MASTER_ADDR and MASTER_PORT unless all are on one machine slurm     SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID,
///   SLURM_STEP_NODELIST …; the first host of the list serves
/// Throws UserError 78 naming the variable, what it holds and what is wanted.
Place find_place(const Environment& environment);

/// The environment of this process.
Environment process_environment();

}  // namespace polysketch
