// SPDX-License-Identifier: Apache-2.0
#include "launch/place.hpp"

#include <gmock/gmock.h>

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "launch/slurm_lists.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using testing::ElementsAre;
using Variables = std::map<std::string, std::string>;

Environment environment(const Variables& variables) {
  return [variables](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

/// `base` with some variables changed; an empty value removes one.
Variables with(Variables base, const Variables& changes) {
  for (const auto& [name, value] : changes) {
    if (value.empty()) {
      base.erase(name);
    } else {
      base[name] = value;
    }
  }
  return base;
}

const Variables torchrun = {{"RANK", "5"},
                            {"WORLD_SIZE", "8"},
                            {"LOCAL_RANK", "1"},
                            {"LOCAL_WORLD_SIZE", "4"},
                            {"MASTER_ADDR", "node-a"},
                            {"MASTER_PORT", "29400"},
                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                            {"TORCHELASTIC_RESTART_COUNT", "2"}};

/// The seventh of seven tasks on four machines.
const Variables slurm = {{"SLURM_JOB_ID", "31007"},
                         {"SLURM_STEP_ID", "1"},
                         {"SLURM_PROCID", "6"},
                         {"SLURM_NTASKS", "7"},
                         {"SLURM_STEP_NUM_TASKS", "7"},
                         {"SLURM_LOCALID", "0"},
                         {"SLURM_NODEID", "3"},
                         {"SLURM_STEP_NODELIST", "node[07-09],login1"},
                         {"SLURM_JOB_NODELIST", "node[06-09],login1"},
                         {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                         {"SLURM_TASKS_PER_NODE", "4(x4)"},
                         {"SLURM_RESTART_COUNT", "3"}};

const Variables open_mpi = {{"OMPI_COMM_WORLD_RANK", "2"},
                            {"OMPI_COMM_WORLD_SIZE", "4"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                            {"PMIX_RANK", "2"}};

const Variables intel_mpi = {{"PMI_RANK", "2"},
                             {"PMI_SIZE", "4"},
                             {"MPI_LOCALRANKID", "0"},
                             {"MPI_LOCALNRANKS", "2"},
                             {"MASTER_ADDR", "10.1.0.5"}};

/// What must come out, in one line.
std::string shown(const Place& p) {
  std::string text = p.source + " " + std::to_string(p.rank) + "/" + std::to_string(p.world) +
                     " local " + std::to_string(p.local_rank) + "/" + std::to_string(p.local_world);
  if (!p.file.empty()) {
    text += " file " + p.file;
  } else if (p.world > 1) {
    text += " at " + p.host + ":" + std::to_string(p.port);
  }
  if (p.agent_store) text += " agent";
  if (p.attempt != 0) text += " attempt " + std::to_string(p.attempt);
  return text;
}

struct Right {
  const char* name;
  Variables variables;
  std::string place;
};

TEST(Place, IsWhatTheVariablesSay) {
  const std::vector<Right> cases = {
      {"nothing", {}, "none 0/1 local 0/1"},
      {"empty variables",
       {{"RANK", ""}, {"WORLD_SIZE", ""}, {"SLURM_PROCID", ""}},
       "none 0/1 local 0/1"},
      {"MASTER_ADDR of a job script",
       {{"MASTER_ADDR", "x"}, {"MASTER_PORT", "no"}, {"LOCAL_RANK", "7"}},
       "none 0/1 local 0/1"},
      {"torchrun", torchrun, "torchrun 5/8 local 1/4 at node-a:29400 agent attempt 2"},
      {"torchrun without an agent",
       with(torchrun,
            {{"TORCHELASTIC_USE_AGENT_STORE", "False"}, {"TORCHELASTIC_RESTART_COUNT", ""}}),
       "torchrun 5/8 local 1/4 at node-a:29400"},
      {"launch's attempt",
       with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", ""},
                       {"TORCHELASTIC_RESTART_COUNT", ""},
                       {"POLYSKETCH_ATTEMPT", "1"}}),
       "torchrun 5/8 local 1/4 at node-a:29400 attempt 1"},
      {"by hand on one machine",
       {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "29500"}},
       "torchrun 1/2 local 1/2 at 127.0.0.1:29500"},
      {"one of one", {{"RANK", "0"}, {"WORLD_SIZE", "1"}}, "torchrun 0/1 local 0/1"},
      {"torchrun within Slurm and MPI", with(with(slurm, open_mpi), torchrun),
       "torchrun 5/8 local 1/4 at node-a:29400 agent attempt 2"},
      {"file",
       with(torchrun, {{"POLYSKETCH_STORE", "file:/shared/run/store"},
                       {"MASTER_ADDR", ""},
                       {"MASTER_PORT", ""}}),
       "file 5/8 local 1/4 file /shared/run/store attempt 2"},
      {"Slurm", slurm,
       "slurm 6/7 local 0/1 at node07:" + std::to_string(job_port(31007, 1)) + " attempt 3"},
      {"Slurm, second machine",
       with(slurm, {{"SLURM_PROCID", "3"},
                    {"SLURM_LOCALID", "1"},
                    {"SLURM_NODEID", "1"},
                    {"SLURM_RESTART_COUNT", ""}}),
       "slurm 3/7 local 1/2 at node07:" + std::to_string(job_port(31007, 1))},
      {"Slurm without variables of the step",
       with(slurm, {{"SLURM_STEP_NUM_TASKS", ""},
                    {"SLURM_NTASKS", "16"},
                    {"SLURM_STEP_TASKS_PER_NODE", ""},
                    {"SLURM_STEP_NODELIST", ""},
                    {"SLURM_RESTART_COUNT", ""}}),
       "slurm 6/16 local 0/4 at node06:" + std::to_string(job_port(31007, 1))},
      {"Slurm on one machine",
       {{"SLURM_JOB_ID", "8"},
        {"SLURM_STEP_ID", "0"},
        {"SLURM_PROCID", "1"},
        {"SLURM_NTASKS", "2"},
        {"SLURM_LOCALID", "1"},
        {"SLURM_NNODES", "1"},
        {"SLURM_STEP_NODELIST", "node07"}},
       "slurm 1/2 local 1/2 at 127.0.0.1:15008"},
      {"Slurm with a meeting point",
       with(slurm, {{"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "29501"}, {"WORLD_SIZE", "7"}}),
       "slurm 6/7 local 0/1 at 10.0.0.7:29501 attempt 3"},
      {"Slurm with a file",
       with(slurm, {{"POLYSKETCH_STORE", "file:s"},
                    {"SLURM_STEP_NODELIST", ""},
                    {"SLURM_JOB_NODELIST", ""}}),
       "slurm 6/7 local 0/1 file s attempt 3"},
      {"one task of srun",
       {{"SLURM_JOB_ID", "8"},
        {"SLURM_STEP_ID", "0"},
        {"SLURM_PROCID", "0"},
        {"SLURM_NTASKS", "1"}},
       "slurm 0/1 local 0/1"},
      {"shell of sbatch",
       {{"SLURM_JOB_ID", "8"},
        {"SLURM_PROCID", "0"},
        {"SLURM_LOCALID", "0"},
        {"SLURM_NTASKS", "1"}},
       "none 0/1 local 0/1"},
      {"shell of sbatch with more tasks",
       {{"SLURM_JOB_ID", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}},
       "none 0/1 local 0/1"},
      {"shell of sbatch as a step",
       {{"SLURM_JOB_ID", "8"},
        {"SLURM_STEP_ID", "4294967291"},
        {"SLURM_PROCID", "0"},
        {"SLURM_NTASKS", "8"}},
       "none 0/1 local 0/1"},
      {"shell of salloc",
       {{"SLURM_JOB_ID", "8"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_NODELIST", "n[1-2]"}},
       "none 0/1 local 0/1"},
      {"srun with PMI", with(slurm, {{"PMI_RANK", "6"}, {"PMI_SIZE", "7"}}),
       "slurm 6/7 local 0/1 at node07:" + std::to_string(job_port(31007, 1)) + " attempt 3"},
      {"srun with PMI of Cray",
       with(slurm, {{"PMI_RANK", "6"},
                    {"PMI_SIZE", "7"},
                    {"PMI_LOCAL_RANK", "0"},
                    {"PMI_LOCAL_SIZE", "1"}}),
       "slurm 6/7 local 0/1 at node07:" + std::to_string(job_port(31007, 1)) + " attempt 3"},
      {"HPE Cray",
       {{"PMI_RANK", "3"},
        {"PMI_SIZE", "4"},
        {"PMI_LOCAL_RANK", "1"},
        {"PMI_LOCAL_SIZE", "2"},
        {"MASTER_ADDR", "n1"}},
       "mpi 3/4 local 1/2 at n1:29500"},
      {"Open MPI", open_mpi, "mpi 2/4 local 2/4 at 127.0.0.1:29500"},
      {"Open MPI within Slurm", with(slurm, open_mpi), "mpi 2/4 local 2/4 at 127.0.0.1:29500"},
      {"Intel MPI", intel_mpi, "mpi 2/4 local 0/2 at 10.1.0.5:29500"},
      {"Intel MPI within Slurm", with(slurm, intel_mpi), "mpi 2/4 local 0/2 at 10.1.0.5:29500"},
      {"MPICH with a file", with(intel_mpi, {{"MASTER_ADDR", ""}, {"POLYSKETCH_STORE", "file:/s"}}),
       "mpi 2/4 local 0/2 file /s"},
      {"MVAPICH2",
       {{"MV2_COMM_WORLD_RANK", "1"},
        {"MV2_COMM_WORLD_SIZE", "2"},
        {"MV2_COMM_WORLD_LOCAL_RANK", "1"},
        {"MV2_COMM_WORLD_LOCAL_SIZE", "2"},
        {"MASTER_PORT", "77"}},
       "mpi 1/2 local 1/2 at 127.0.0.1:77"},
  };
  for (const Right& c : cases) {
    SCOPED_TRACE(c.name);
    try {
      EXPECT_EQ(shown(find_place(environment(c.variables))), c.place);
    } catch (const UserError& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

struct Wrong {
  const char* name;
  Variables variables;
  std::string begins;  ///< what the message begins with: the variable, and what it holds
  std::string wants;
};

TEST(Place, WrongVariablesAreNamed) {
  const std::vector<Wrong> cases = {
      {"rank as large as the world", with(torchrun, {{"RANK", "8"}}),
       "RANK=8: ", "0 to 7 as WORLD_SIZE=8"},
      {"negative rank", with(torchrun, {{"RANK", "-1"}}), "RANK=-1: ", "0 to 7"},
      {"no number", with(torchrun, {{"RANK", "five"}}), "RANK=five: ", "0 to 7"},
      {"number and more", with(torchrun, {{"WORLD_SIZE", "8 "}}),
       "WORLD_SIZE=8 : ", "number of processes"},
      {"too large for a number", with(torchrun, {{"WORLD_SIZE", "99999999999999999999"}}),
       "WORLD_SIZE=9999", "number of processes"},
      {"empty world", with(torchrun, {{"WORLD_SIZE", "0"}}), "WORLD_SIZE=0: ", "1 to"},
      {"RANK alone", {{"RANK", "0"}}, "WORLD_SIZE is not set", "but RANK=0 is"},
      {"WORLD_SIZE alone", {{"WORLD_SIZE", "2"}}, "RANK is not set", "but WORLD_SIZE=2 is"},
      {"local rank too large", with(torchrun, {{"LOCAL_RANK", "4"}}),
       "LOCAL_RANK=4: ", "0 to 3 as LOCAL_WORLD_SIZE=4"},
      {"local world too large", with(torchrun, {{"LOCAL_WORLD_SIZE", "9"}}),
       "LOCAL_WORLD_SIZE=9: ", "1 to all 8"},
      {"no LOCAL_RANK", with(torchrun, {{"LOCAL_RANK", ""}}), "LOCAL_RANK is not set",
       "RANK=5 of WORLD_SIZE=8"},
      {"neither LOCAL_ variable, other machine",
       with(torchrun, {{"LOCAL_RANK", ""}, {"LOCAL_WORLD_SIZE", ""}}), "LOCAL_RANK is not set",
       "not this machine"},
      {"no LOCAL_WORLD_SIZE", with(torchrun, {{"LOCAL_WORLD_SIZE", ""}}),
       "LOCAL_WORLD_SIZE is not set", "processes on this machine"},
      {"no MASTER_ADDR", with(torchrun, {{"MASTER_ADDR", ""}}), "MASTER_ADDR is not set",
       "rank 0's machine"},
      {"no MASTER_PORT", with(torchrun, {{"MASTER_PORT", ""}}), "MASTER_PORT is not set",
       "a free port"},
      {"port 0", with(torchrun, {{"MASTER_PORT", "0"}}), "MASTER_PORT=0: ", "1 to 65535"},
      {"port too large", with(torchrun, {{"MASTER_PORT", "65536"}}),
       "MASTER_PORT=65536: ", "1 to 65535"},
      {"restarts", with(torchrun, {{"TORCHELASTIC_RESTART_COUNT", "x"}}),
       "TORCHELASTIC_RESTART_COUNT=x: ", "count"},
      {"another store", with(torchrun, {{"POLYSKETCH_STORE", "/shared/store"}}),
       "POLYSKETCH_STORE=/shared/store: ", "file:PATH"},
      {"file without a path", with(torchrun, {{"POLYSKETCH_STORE", "file:"}}),
       "POLYSKETCH_STORE=file:: ", "file:PATH"},
      {"file without a rank",
       {{"POLYSKETCH_STORE", "file:/s"}},
       "RANK is not set",
       "POLYSKETCH_STORE=file:/s"},
      {"Slurm: rank too large", with(slurm, {{"SLURM_PROCID", "7"}}),
       "SLURM_PROCID=7: ", "0 to 6 as SLURM_STEP_NUM_TASKS=7"},
      {"Slurm: no size", with(slurm, {{"SLURM_STEP_NUM_TASKS", ""}, {"SLURM_NTASKS", ""}}),
       "SLURM_STEP_NUM_TASKS is not set", "SLURM_PROCID=6"},
      {"Slurm: tasks that do not add up", with(slurm, {{"SLURM_STEP_TASKS_PER_NODE", "2(x4)"}}),
       "SLURM_STEP_TASKS_PER_NODE=2(x4): ", "a sum of 7 as SLURM_STEP_NUM_TASKS=7, not 8"},
      {"Slurm: tasks that are no list", with(slurm, {{"SLURM_STEP_TASKS_PER_NODE", "2(y3)"}}),
       "SLURM_STEP_TASKS_PER_NODE=2(y3): ", "2(x3),1"},
      {"Slurm: no tasks per node",
       with(slurm, {{"SLURM_STEP_TASKS_PER_NODE", ""}, {"SLURM_TASKS_PER_NODE", ""}}),
       "SLURM_STEP_TASKS_PER_NODE is not set", "2(x3),1"},
      {"Slurm: machine too large", with(slurm, {{"SLURM_NODEID", "4"}}),
       "SLURM_NODEID=4: ", "0 to 3"},
      {"Slurm: no machine", with(slurm, {{"SLURM_NODEID", ""}}), "SLURM_NODEID is not set",
       "0 to 3"},
      {"Slurm: local rank too large", with(slurm, {{"SLURM_LOCALID", "1"}}),
       "SLURM_LOCALID=1: ", "0 to 0"},
      {"Slurm: no local rank", with(slurm, {{"SLURM_LOCALID", ""}}), "SLURM_LOCALID is not set",
       "on its machine"},
      {"Slurm: no list of machines",
       with(slurm, {{"SLURM_STEP_NODELIST", ""}, {"SLURM_JOB_NODELIST", ""}}),
       "SLURM_STEP_NODELIST is not set", "MASTER_ADDR"},
      {"Slurm: list of machines", with(slurm, {{"SLURM_STEP_NODELIST", "node[01-"}}),
       "SLURM_STEP_NODELIST=node[01-: ", "node[01-03,07],login1"},
      {"Slurm: job", with(slurm, {{"SLURM_JOB_ID", "7_1"}}), "SLURM_JOB_ID=7_1: ", "a number"},
      {"Slurm: step", with(slurm, {{"SLURM_STEP_ID", "batch"}}),
       "SLURM_STEP_ID=batch: ", "job step"},
      {"Slurm: other WORLD_SIZE", with(slurm, {{"WORLD_SIZE", "8"}}),
       "WORLD_SIZE=8: ", "7, as srun started"},
      {"MPI: no size", with(open_mpi, {{"OMPI_COMM_WORLD_SIZE", ""}}),
       "OMPI_COMM_WORLD_SIZE is not set", "OMPI_COMM_WORLD_RANK=2"},
      {"MPI: no local rank", with(open_mpi, {{"OMPI_COMM_WORLD_LOCAL_RANK", ""}}),
       "OMPI_COMM_WORLD_LOCAL_RANK is not set", "OMPI_COMM_WORLD_RANK=2"},
      {"MPI: several machines without an address", with(intel_mpi, {{"MASTER_ADDR", ""}}),
       "MASTER_ADDR is not set", "MPI_LOCALNRANKS=2"},
      {"MPI: other WORLD_SIZE", with(open_mpi, {{"WORLD_SIZE", "2"}}),
       "WORLD_SIZE=2: ", "4, as mpirun started"},
  };
  for (const Wrong& c : cases) {
    SCOPED_TRACE(c.name);
    try {
      ADD_FAILURE() << "accepted: " << shown(find_place(environment(c.variables)));
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::config);
      EXPECT_THAT(error.what(), testing::StartsWith(c.begins));
      EXPECT_THAT(error.what(), testing::HasSubstr(c.wants));
      EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
    }
  }
}

TEST(Place, SaysWhatLooksLikeAMistake) {
  EXPECT_THAT(
      find_place(environment({{"SLURM_JOB_ID", "8"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}))
          .note,
      testing::HasSubstr("SLURM_NTASKS=8"));
  EXPECT_THAT(find_place(environment(with(torchrun, {{"MASTER_ADDR", "localhost"}}))).note,
              testing::HasSubstr("4 of 8 processes are elsewhere"));
  for (const Variables& right :
       {Variables{}, torchrun, slurm, open_mpi, {{"SLURM_JOB_ID", "8"}, {"SLURM_NTASKS", "1"}}}) {
    EXPECT_EQ(find_place(environment(right)).note, "");
  }
}

TEST(Place, AttemptsAreToldApartWhereTheStoreOutlivesThem) {
  EXPECT_EQ(store_prefix(find_place(environment(torchrun))), "polysketch/2");
  EXPECT_EQ(store_prefix(find_place(environment(with(slurm, {{"POLYSKETCH_STORE", "file:/s"}})))),
            "polysketch/3");
  EXPECT_EQ(
      store_prefix(find_place(environment(with(torchrun, {{"TORCHELASTIC_USE_AGENT_STORE", ""}})))),
      "polysketch");
}

TEST(Place, IsDescribedInOneLine) {
  EXPECT_EQ(describe(Place{}), "alone: no launcher's variables are set");
  EXPECT_THAT(describe(find_place(
                  environment({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"POLYSKETCH_ATTEMPT", "0"}}))),
              testing::EndsWith("by polysketch launch's variables"));
  EXPECT_EQ(describe(find_place(environment(torchrun))),
            "rank 5 of 8 (1 of 4 on this machine), meeting at node-a:29400, where torchrun's agent "
            "serves, restart 2, by torchrun's variables");
  EXPECT_EQ(describe(find_place(environment(
                with(torchrun, {{"MASTER_ADDR", "fe80::1"}, {"POLYSKETCH_STORE", "file:/s"}})))),
            "rank 5 of 8 (1 of 4 on this machine), meeting in the file /s, restart 2, by "
            "torchrun's variables");
  EXPECT_THAT(describe(find_place(environment(with(torchrun, {{"MASTER_ADDR", "fe80::1"}})))),
              testing::HasSubstr("[fe80::1]:29400"));
}

TEST(Place, PortsOfJobsStayClearOfThoseOfConnections) {
  for (const uint64_t job : {0ULL, 1ULL, 14'999ULL, 15'000ULL, 18446744073709551615ULL}) {
    for (const uint64_t step : {0ULL, 1ULL, 4294967295ULL}) {
      EXPECT_GE(job_port(job, step), 15'000);
      EXPECT_LT(job_port(job, step), 30'000);
    }
    EXPECT_NE(job_port(job, 0), job_port(job, 1)) << "steps of one job";
    EXPECT_NE(job_port(job, 0), job_port(job + 1, 0)) << "jobs that follow each other";
  }
}

TEST(HostList, IsExpandedAsSlurmDoes) {
  EXPECT_THAT(*expand_host_list("login1"), ElementsAre("login1"));
  EXPECT_THAT(*expand_host_list("node[01-03,07],login1"),
              ElementsAre("node01", "node02", "node03", "node07", "login1"));
  EXPECT_THAT(*expand_host_list("n[9-11]"), ElementsAre("n9", "n10", "n11"));
  EXPECT_THAT(
      *expand_host_list("r[1-2]n[08-09]-ib.cluster"),
      ElementsAre("r1n08-ib.cluster", "r1n09-ib.cluster", "r2n08-ib.cluster", "r2n09-ib.cluster"));
  EXPECT_THAT(*expand_host_list("a[1-1000000000]b[0-999999999],c", 2), ElementsAre("a1b0", "a1b1"));
  for (const char* wrong :
       {"", ",", "a,", ",a", "a,,b", "n[", "n]", "n[]", "n[1", "n[1-]", "n[-1]", "n[2-1]", "n[1,]",
        "n[a]", "n[1[2]]", "n[1]]", "a b", "n[99999999999999999999]", "a/b"}) {
    EXPECT_FALSE(expand_host_list(wrong)) << wrong;
  }
}

TEST(TaskCounts, AreExpandedAsSlurmDoes) {
  EXPECT_THAT(*expand_task_counts("8"), ElementsAre(8));
  EXPECT_THAT(*expand_task_counts("2(x3),1"), ElementsAre(2, 2, 2, 1));
  for (const char* wrong : {"", "x", "2(x", "2(x)", "2(x3", "2(3)", "(x3)", "2(x3)1", "2,", "-1",
                            "1(x1000001)", "1(x999999),1(x2)"}) {
    EXPECT_FALSE(expand_task_counts(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace polysketch
