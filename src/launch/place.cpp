// SPDX-License-Identifier: Apache-2.0
#include "launch/place.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <numeric>
#include <string_view>
#include <vector>

#include "launch/slurm_lists.hpp"
#include "support/error.hpp"
#include "support/units.hpp"

namespace polysketch {
namespace {

constexpr int64_t kMostProcesses = 1 << 20;
constexpr int64_t kUsualPort = 29500;
/// Slurm's ids of batch shells, interactive shells and the like
constexpr int64_t kFirstSpecialStep = 0xFFFFFFF0;

struct Variable {
  const char* name;
  std::string value;
};

[[noreturn]] void fail(const std::string& text) { throw UserError(ExitCode::config, text); }

[[noreturn]] void fail(const Variable& variable, const std::string& wanted) {
  fail(fmt::format("{}={}: want {}", variable.name, variable.value, wanted));
}

[[noreturn]] void fail_missing(const char* name, const std::string& wanted,
                               const std::string& because) {
  fail(fmt::format("{} is not set, {}: want {}", name, because, wanted));
}

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  std::optional<Variable> find(const char* name) const {
    auto value = environment_(name);
    if (!value || value->empty()) return std::nullopt;
    return Variable{name, std::move(*value)};
  }
  std::optional<Variable> find_first(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      if (auto found = find(name)) return found;
    }
    return std::nullopt;
  }
  bool has(const char* name) const { return find(name).has_value(); }
  std::optional<int64_t> number(const char* name, int64_t least, int64_t most,
                                const std::string& wanted) const {
    const auto variable = find(name);
    return variable ? std::optional(to_number(*variable, least, most, wanted)) : std::nullopt;
  }
  static int64_t to_number(const Variable& variable, int64_t least, int64_t most,
                           const std::string& wanted) {
    // Programs write them, so without units.
    const bool plain = variable.value.find_first_not_of("0123456789") == std::string::npos;
    const auto value = plain ? parse_count(variable.value) : std::nullopt;
    if (!value || *value < least || *value > most) fail(variable, wanted);
    return *value;
  }

 private:
  const Environment& environment_;
};

std::string set_by(const Variable& variable) {
  return fmt::format("but {}={} is", variable.name, variable.value);
}

/// Fills rank and world from two variables, of which the first is set.
void read_rank(const Variable& rank, const std::optional<Variable>& size, const char* size_name,
               Place& place) {
  if (!size) fail_missing(size_name, "the number of processes", set_by(rank));
  place.world = Variables::to_number(
      *size, 1, kMostProcesses, fmt::format("the number of processes, 1 to {}", kMostProcesses));
  place.rank = Variables::to_number(rank, 0, place.world - 1,
                                    fmt::format("the number of this process, 0 to {} as {}={}",
                                                place.world - 1, size->name, size->value));
}

/// Fills local_rank and local_world, which must be set.
void read_local_rank(const Variables& variables, const char* rank_name, const char* size_name,
                     const std::string& because, Place& place) {
  const auto size = variables.find(size_name), rank = variables.find(rank_name);
  if (!rank)
    fail_missing(rank_name, "the number of this process among those of its machine, from 0",
                 because);
  if (!size) fail_missing(size_name, "the number of processes on this machine", because);
  place.local_world =
      Variables::to_number(*size, 1, place.world,
                           fmt::format("the processes on this machine, 1 to all {}", place.world));
  place.local_rank = Variables::to_number(
      *rank, 0, place.local_world - 1,
      fmt::format("the number of this process among those of its machine, 0 to {} as {}={}",
                  place.local_world - 1, size_name, size->value));
}

bool names_this_machine(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

/// MASTER_ADDR and MASTER_PORT, where they are set.
void read_meeting_point(const Variables& variables, Place& place) {
  if (const auto host = variables.find("MASTER_ADDR")) place.host = host->value;
  if (const auto port = variables.number("MASTER_PORT", 1, 65535, "a port, 1 to 65535"))
    place.port = *port;
}

void read_torchrun(const Variables& variables, const Variable& rank, Place& place) {
  place.source = "torchrun";
  read_rank(rank, variables.find("WORLD_SIZE"), "WORLD_SIZE", place);
  const auto host = variables.find("MASTER_ADDR");
  const bool one_machine = place.world == 1 || (host && names_this_machine(host->value));
  if (one_machine && !variables.has("LOCAL_RANK") && !variables.has("LOCAL_WORLD_SIZE")) {
    place.local_rank = place.rank;
    place.local_world = place.world;
  } else {
    read_local_rank(variables, "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                    fmt::format("but RANK={} of WORLD_SIZE={} is{}", place.rank, place.world,
                                one_machine ? "" : ", and MASTER_ADDR is not this machine"),
                    place);
  }
  if (one_machine && place.local_world < place.world) {
    place.note = fmt::format(
        "MASTER_ADDR={} is this machine to every other one, and {} of {} processes are elsewhere: "
        "give rank 0's address",
        host->value, place.world - place.local_world, place.world);
  }
  read_meeting_point(variables, place);
  const auto agent = variables.find("TORCHELASTIC_USE_AGENT_STORE");
  place.agent_store =
      agent && (agent->value == "True" || agent->value == "true" || agent->value == "1");
}

void require_meeting_point(const Variables& variables, const Place& place) {
  const std::string because =
      fmt::format("but RANK={} of WORLD_SIZE={} is", place.rank, place.world);
  if (!variables.has("MASTER_ADDR"))
    fail_missing("MASTER_ADDR", "the address of rank 0's machine, or POLYSKETCH_STORE=file:PATH",
                 because);
  if (!variables.has("MASTER_PORT"))
    fail_missing("MASTER_PORT", "a free port of that machine, the same for all processes", because);
}

struct MpiVariables {
  const char *rank, *world, *local_rank, *local_world;
};
constexpr MpiVariables mpi_kinds[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
     "MV2_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE"},
};

bool is_slurm_task(const Variables& variables) {
  if (!variables.has("SLURM_PROCID")) return false;
  const auto step = variables.find_first({"SLURM_STEP_ID", "SLURM_STEPID"});
  if (!step) return variables.has("SLURM_STEP_NUM_TASKS") || variables.has("SLURM_STEP_NODELIST");
  return Variables::to_number(*step, 0, INT64_MAX, "the number of a job step") < kFirstSpecialStep;
}

std::optional<Variable> slurm_size(const Variables& variables) {
  return variables.find_first({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"});
}

/// srun sets MPI's variables for its tasks too (--mpi=pmi2, cray_shasta), and says more in its own.
/// mpirun within a Slurm job starts helpers by srun, whose numbers the processes inherit: those are
/// not theirs.
bool says_the_same_as_slurm(const Variables& variables, const MpiVariables& kind) {
  const auto rank = variables.find(kind.rank), world = variables.find(kind.world),
             tasks = slurm_size(variables);
  return is_slurm_task(variables) && rank->value == variables.find("SLURM_PROCID")->value &&
         world && tasks && world->value == tasks->value;
}

/// The kind that is set, if possible with its numbers on this machine.
const MpiVariables* find_mpi(const Variables& variables) {
  const MpiVariables* found = nullptr;
  for (const MpiVariables& kind : mpi_kinds) {
    if (!variables.has(kind.rank) || (found != nullptr && !variables.has(kind.local_rank)))
      continue;
    if (found == nullptr || !variables.has(found->local_rank)) found = &kind;
  }
  return found != nullptr && says_the_same_as_slurm(variables, *found) ? nullptr : found;
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

void read_mpi(const Variables& variables, const MpiVariables& kind, Place& place) {
  place.source = "mpi";
  const auto rank = variables.find(kind.rank);
  read_rank(*rank, variables.find(kind.world), kind.world, place);
  if (place.world > 1)
    read_local_rank(variables, kind.local_rank, kind.local_world, set_by(*rank), place);
  const auto name_space = variables.find("PMIX_NAMESPACE");
  place.port = name_space ? job_port(fnv1a(name_space->value) >> 32, 0) : kUsualPort;
  read_meeting_point(variables, place);
  if (place.local_world < place.world && !variables.has("MASTER_ADDR") &&
      !variables.has("POLYSKETCH_STORE")) {
    fail_missing("MASTER_ADDR",
                 "the address of rank 0's machine, for example by mpirun -x MASTER_ADDR=node-a",
                 fmt::format("but {} processes are on several machines ({}={})", place.world,
                             kind.local_world, place.local_world));
  }
}

/// Tasks on this machine, from the list that Slurm gives of all machines.
int64_t slurm_local_world(const Variables& variables, const Place& place) {
  const auto counts = variables.find_first({"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"});
  const auto size = slurm_size(variables);
  if (!counts) {
    const auto machines =
        variables.find_first({"SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"});
    if (machines && machines->value == "1") return place.world;
    fail_missing("SLURM_STEP_TASKS_PER_NODE", "the tasks of each machine, as 2(x3),1",
                 set_by(*variables.find("SLURM_PROCID")));
  }
  const auto each = expand_task_counts(counts->value);
  if (!each) fail(*counts, "the tasks of each machine, as 2(x3),1");
  const int64_t sum = std::accumulate(each->begin(), each->end(), int64_t{0});
  if (sum != place.world)
    fail(*counts,
         fmt::format("a sum of {} as {}={}, not {}", place.world, size->name, size->value, sum));
  const int64_t last = static_cast<int64_t>(each->size()) - 1;
  const std::string wanted = fmt::format("the number of this machine, 0 to {} as {}={}", last,
                                         counts->name, counts->value);
  auto machine = variables.number("SLURM_NODEID", 0, last, wanted);
  if (!machine && last > 0) fail_missing("SLURM_NODEID", wanted, set_by(*counts));
  return each->at(static_cast<size_t>(machine.value_or(0)));
}

std::string first_slurm_host(const Variables& variables) {
  const auto list =
      variables.find_first({"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"});
  if (!list) {
    fail_missing("SLURM_STEP_NODELIST", "the machines of the job step, or MASTER_ADDR",
                 set_by(*variables.find("SLURM_PROCID")));
  }
  const auto hosts = expand_host_list(list->value, 1);
  if (!hosts || hosts->empty()) fail(*list, "a list of machines, as node[01-03,07],login1");
  return hosts->front();
}

void read_slurm(const Variables& variables, Place& place) {
  place.source = "slurm";
  const auto rank = variables.find("SLURM_PROCID"), size = slurm_size(variables);
  read_rank(*rank, size, "SLURM_STEP_NUM_TASKS", place);
  place.attempt = variables.number("SLURM_RESTART_COUNT", 0, INT64_MAX, "a count").value_or(0);
  if (place.world == 1) return;
  place.local_world = slurm_local_world(variables, place);
  const auto local_rank = variables.number(
      "SLURM_LOCALID", 0, place.local_world - 1,
      fmt::format("the number of this task on its machine, 0 to {}", place.local_world - 1));
  if (!local_rank)
    fail_missing("SLURM_LOCALID", "the number of this task on its machine", set_by(*rank));
  place.local_rank = *local_rank;
  const std::string digits = "a number";
  const auto job = variables.number(variables.has("SLURM_JOB_ID") ? "SLURM_JOB_ID" : "SLURM_JOBID",
                                    0, INT64_MAX, digits);
  const auto step = variables.number(
      variables.has("SLURM_STEP_ID") ? "SLURM_STEP_ID" : "SLURM_STEPID", 0, INT64_MAX, digits);
  place.port = job ? job_port(static_cast<uint64_t>(*job), static_cast<uint64_t>(step.value_or(0)))
                   : kUsualPort;
  read_meeting_point(variables, place);
  if (place.local_world < place.world && !variables.has("MASTER_ADDR") &&
      !variables.has("POLYSKETCH_STORE")) {
    place.host = first_slurm_host(variables);
  }
}

/// Slurm's and MPI's tasks are often given WORLD_SIZE by a job script; a rank alone tells nothing.
void compare_with_world_size(const Variables& variables, const Place& place) {
  const auto size = variables.find("WORLD_SIZE");
  if (!size || place.source == "torchrun") return;
  if (place.source == "none") {
    fail_missing(
        "RANK",
        fmt::format(
            "the number of this process, 0 to WORLD_SIZE - 1; or unset WORLD_SIZE to train alone"),
        set_by(*size));
  }
  const int64_t world = Variables::to_number(*size, 1, kMostProcesses, "the number of processes");
  if (world != place.world) {
    fail(*size, fmt::format("{}, as {} started so many processes; or unset it", place.world,
                            place.source == "slurm" ? "srun" : "mpirun"));
  }
}

void read_store(const Variables& variables, Place& place) {
  const auto store = variables.find("POLYSKETCH_STORE");
  if (!store) return;
  if (!store->value.starts_with("file:") || store->value.size() == 5)
    fail(*store, "file:PATH on a file system that all processes share");
  if (place.source == "none") fail_missing("RANK", "the number of this process", set_by(*store));
  place.file = store->value.substr(5);
  if (place.source == "torchrun") place.source = "file";
  place.agent_store = false;
}

}  // namespace

int64_t job_port(uint64_t job, uint64_t step) {
  return static_cast<int64_t>(15000 + (job % 15000 + 4999 * (step % 15000)) % 15000);
}

Place find_place(const Environment& environment) {
  const Variables variables(environment);
  Place place;
  if (const auto rank = variables.find("RANK")) {
    read_torchrun(variables, *rank, place);
  } else if (const MpiVariables* kind = find_mpi(variables)) {
    read_mpi(variables, *kind, place);
  } else if (is_slurm_task(variables)) {
    read_slurm(variables, place);
  }
  // torchrun's agent says who it is; our launcher counts its attempts.
  place.launcher =
      place.source == "slurm" ? "Slurm"
      : place.source == "mpi" ? "MPI"
      : variables.has("POLYSKETCH_ATTEMPT") && !variables.has("TORCHELASTIC_RESTART_COUNT")
          ? "polysketch launch"
          : "torchrun";
  compare_with_world_size(variables, place);
  read_store(variables, place);
  if (place.source == "torchrun" && place.world > 1) require_meeting_point(variables, place);
  if (place.source != "none" && place.source != "slurm") {
    const char* count = variables.has("TORCHELASTIC_RESTART_COUNT") ? "TORCHELASTIC_RESTART_COUNT"
                                                                    : "POLYSKETCH_ATTEMPT";
    place.attempt =
        variables.number(count, 0, INT64_MAX, "a count of restarts, 0 or more").value_or(0);
  }
  const auto tasks = variables.find("SLURM_NTASKS");
  if (place.source == "none" && tasks && tasks->value != "1") {
    place.note = fmt::format(
        "this process trains alone, though the job has SLURM_NTASKS={}: start it by srun "
        "(scripts/slurm/train.sbatch)",
        tasks->value);
  }
  return place;
}

Environment process_environment() {
  return [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

std::string store_prefix(const Place& place) {
  return place.agent_store || !place.file.empty() ? fmt::format("polysketch/{}", place.attempt)
                                                  : "polysketch";
}

std::string describe(const Place& place) {
  if (place.source == "none") return "alone: no launcher's variables are set";
  std::string text = fmt::format("rank {} of {} ({} of {} on this machine)", place.rank,
                                 place.world, place.local_rank, place.local_world);
  if (!place.file.empty()) {
    text += ", meeting in the file " + place.file;
  } else if (place.world > 1) {
    text +=
        fmt::format(", meeting at {}:{}",
                    place.host.find(':') == std::string::npos ? place.host : '[' + place.host + ']',
                    place.port);
    if (place.agent_store) text += ", where torchrun's agent serves";
  }
  if (place.attempt > 0) text += fmt::format(", restart {}", place.attempt);
  return text + fmt::format(", by {}'s variables", place.launcher);
}

}  // namespace polysketch
