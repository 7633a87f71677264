// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace polysketch {

/// Where this process stands among those of its run, and where they meet. Known before anything is
/// connected.
struct Place {
  int64_t rank = 0, world = 1;              ///< of all processes of the run
  int64_t local_rank = 0, local_world = 1;  ///< of those on this machine
  std::string host =
      "127.0.0.1";   ///< where the store is served: by rank 0, or by the launcher if agent_store
  int64_t port = 0;  ///< 0 only if nobody is to be met there: world 1, or `file`
  std::string file;  ///< meet in this file on a file system that all share, instead of at host and
                     ///< port; empty: no
  bool agent_store =
      false;  ///< the launcher serves the store (torchrun's agent): no process of the run does
  int64_t attempt = 0;          ///< how often the launcher has started the group anew
  std::string source = "none";  ///< whose variables said so: none, torchrun, slurm, mpi, file
  /// who set them, as people call it: polysketch launch, which sets torchrun's, torchrun, Slurm,
  /// MPI
  std::string launcher;
  std::string note;  ///< something the user should be told before a long run; empty: nothing
};

/// Reads an environment variable; nothing if it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;

/// The place that a launcher's variables tell; a place alone in the world if there are none. An
/// empty variable counts as not set.
///
/// Who this process is, the first of:
///   torchrun  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE; the last two may be left out if
///   MASTER_ADDR is this machine (localhost,
///             127.0.0.1, ::1). `polysketch launch` sets the same variables
///   mpi       OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE} (Open MPI), MV2_COMM_WORLD_…
///   (MVAPICH2), PMI_RANK, PMI_SIZE with
///             MPI_LOCALRANKID, MPI_LOCALNRANKS (MPICH, Intel MPI) or PMI_LOCAL_RANK,
///             PMI_LOCAL_SIZE (HPE Cray); not if they are srun's own
///   slurm     SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS, SLURM_LOCALID, SLURM_NODEID,
///   SLURM_STEP_TASKS_PER_NODE of srun's task.
///             The shell of sbatch or salloc is no task: a process that is started there is alone,
///             with a note if the job has more tasks
///
/// Where they meet, the first of:
///   POLYSKETCH_STORE=file:PATH  a file that none of them has used before; `source` is then "file"
///   instead of "torchrun" MASTER_ADDR, MASTER_PORT    must both be set for torchrun;
///   TORCHELASTIC_USE_AGENT_STORE says who serves
///   one machine                 127.0.0.1
///   slurm                       the first host of SLURM_STEP_NODELIST or SLURM_JOB_NODELIST, where
///   srun puts rank 0
/// and for Slurm and MPI without MASTER_PORT, job_port() of SLURM_JOB_ID and SLURM_STEP_ID, or of a
/// hash of PMIX_NAMESPACE, else 29500.
///
/// attempt: TORCHELASTIC_RESTART_COUNT, POLYSKETCH_ATTEMPT or SLURM_RESTART_COUNT.
///
/// Throws UserError 78 naming the variable, what it holds and what is wanted: if one is missing
/// that the others need, is no number, is out of range, or contradicts another (WORLD_SIZE and
/// SLURM_NTASKS, tasks per node and their sum).
Place find_place(const Environment& environment);

/// The environment of this process.
Environment process_environment();

/// The port of a job where nobody chose one: 15000 + (job + 4999·step) mod 15000. Below the ports
/// that systems hand out to connections (32768 and up), and different for jobs that follow each
/// other and for the steps of one job.
int64_t job_port(uint64_t job, uint64_t step);

/// What the keys of the store begin with: with the attempt where the store outlives one (torchrun's
/// agent, a file), so that attempts do not see each other's. A store that rank 0 serves is as young
/// as its rank 0, and the launchers of several machines may have counted differently.
std::string store_prefix(const Place& place);

/// "rank 3 of 8 (1 of 4 on this machine), meeting at node-a:29500, by torchrun's variables".
std::string describe(const Place& place);

}  // namespace polysketch
