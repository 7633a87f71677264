// SPDX-License-Identifier: Apache-2.0
// The scripts that start runs: with a stand-in for srun, scontrol and the container engines, and a
// shell script for the program.
#include <gmock/gmock.h>

#include <filesystem>
#include <string>
#include <vector>

#include "launch/launched.hpp"

namespace polysketch::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class Scripts : public testing::Test {
 protected:
  Scripts() {
    program("srun", "exec " + (source_folder() / "tests/launch/fake_srun").string() + " \"$@\"");
    program("scontrol", "echo scontrol $*");
    program("docker", "printf '<%s>' docker \"$@\"");
    program("podman", "printf '<%s>' podman \"$@\"");
    program("apptainer", "printf '<%s>' apptainer \"$@\"");
    program("nvidia-smi", "echo 'GPU 0: a'; echo 'GPU 1: b'");
  }
  /// A script of sh as `name` in PATH.
  void program(const std::string& name, const std::string& script) {
    write_text(folder_ / "bin" / name, "#!/bin/sh\n" + script + "\n");
    fs::permissions(folder_ / "bin" / name, fs::perms::owner_all);
  }
  ProcessResult run(std::vector<std::string> command,
                    std::vector<std::string> environment = {}) const {
    command[0] = (source_folder() / command[0]).string();
    environment.push_back("PATH=" + (folder_ / "bin").string() + ":/usr/bin:/bin");
    environment.push_back("D=" + folder_.path().string());
    return run_process(command, environment, folder_.path());
  }
  fs::path bin() const { return folder_ / "bin"; }

  TemporaryFolder folder_;
};

TEST_F(Scripts, AreWellFormed) {
  for (const char* script :
       {"scripts/slurm/train.sbatch", "scripts/container/train", "tests/launch/fake_srun"}) {
    const ProcessResult result = run_process({"bash", "-n", (source_folder() / script).string()});
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
}

TEST_F(Scripts, SlurmStartsEveryTask) {
  program("polysketch",
          "echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NODEID $SLURM_STEP_NODELIST $OMP_NUM_THREADS "
          "\"$@\"");
  const ProcessResult result = run({"scripts/slurm/train.sbatch", "a.yaml", "--set", "x=1 2"},
                                   {"FAKE_SRUN_TASKS=2,1", "SLURM_CPUS_PER_TASK=3"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(
      Launched::lines(result.out),
      testing::UnorderedElementsAre("0: 0 0 0 localhost,node01 3 train a.yaml --set x=1 2",
                                    "1: 1 1 0 localhost,node01 3 train a.yaml --set x=1 2",
                                    "2: 2 0 1 localhost,node01 3 train a.yaml --set x=1 2"));
}

TEST_F(Scripts, SlurmRequeuesWhatWasStopped) {
  program("polysketch", "exit 75");
  const ProcessResult stopped =
      run({"scripts/slurm/train.sbatch", "a.yaml"}, {"FAKE_SRUN_TASKS=2", "SLURM_JOB_ID=17"});
  EXPECT_EQ(stopped.exit_code, 75);
  EXPECT_THAT(stopped.out, HasSubstr("scontrol requeue 17"));
  program("polysketch", "exit 70");
  const ProcessResult failed =
      run({"scripts/slurm/train.sbatch", "a.yaml"}, {"FAKE_SRUN_TASKS=2", "SLURM_JOB_ID=17"});
  EXPECT_EQ(failed.exit_code, 70);
  EXPECT_THAT(failed.out, Not(HasSubstr("scontrol")));
}

/// Slurm signals shell and tasks alike.
TEST_F(Scripts, SlurmWaitsForTheTasksWhenCancelled) {
  program("polysketch",
          "trap 'echo stop >> $D/stops; stop=1' TERM; echo $PPID > $D/ready; while [ -z $stop ]; "
          "do sleep 0.02; done; sleep 0.3; exit 75");
  LaunchOptions options;
  options.command = {(source_folder() / "scripts/slurm/train.sbatch").string(), "a.yaml"};
  const pid_t script = fork();
  if (script == 0) {
    setenv("PATH", (bin().string() + ":/usr/bin:/bin").c_str(), 1);
    setenv("D", folder_.path().c_str(), 1);
    setenv("SLURM_JOB_ID", "17", 1);
    dup2(::open((folder_ / "out").c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    execl(options.command[0].c_str(), options.command[0].c_str(), "a.yaml", nullptr);
    _exit(127);
  }
  ASSERT_TRUE(eventually([&] {
    return fs::exists(folder_ / "ready") && !processes_in(folder_.path(), "ready").empty();
  }));
  kill(script, SIGTERM);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(is_gone(script)) << "it left its tasks alone";
  EXPECT_FALSE(fs::exists(folder_ / "stops")) << "it passed the signal on";
  kill(processes_in(folder_.path(), "ready").at(0), SIGTERM);  // as srun's helper would
  int status = 0;
  ASSERT_TRUE(eventually([&] { return waitpid(script, &status, WNOHANG) == script; }));
  EXPECT_EQ(WEXITSTATUS(status), 75);
  EXPECT_THAT(read_text(folder_ / "out"), Not(HasSubstr("scontrol")))
      << "a job that was cancelled stays away";
  EXPECT_EQ(read_text(folder_ / "stops"), "stop\n");
}

TEST_F(Scripts, ContainersOfOneMachine) {
  const std::string here = fs::canonical(folder_.path()).string();
  for (const auto& [engine, device] :
       {std::pair("docker", "<--gpus><all>"), std::pair("podman", "<--device><nvidia.com/gpu=all>"),
        std::pair("apptainer", "<--nv>")}) {
    const ProcessResult result = run({"scripts/container/train", "--engine", engine, "--image",
                                      "img", "a.yaml", "--set", "x=1 2"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const std::string words = Launched::lines(result.out).back();
    EXPECT_THAT(
        words,
        AllOf(
            testing::StartsWith(std::string("<") + engine + "><run>"), HasSubstr(device),
            HasSubstr(here + ":/workspace>"),
            testing::EndsWith(
                "<img><launch><--nproc><2><--max-restarts><3><--><train><a.yaml><--set><x=1 2>")));
  }
}

TEST_F(Scripts, ContainersOfSeveralMachines) {
  const ProcessResult result = run(
      {"scripts/container/train", "--processes", "4", "--nodes", "2", "--node-rank", "1", "a.yaml"},
      {"MASTER_ADDR=10.0.0.1", "MASTER_PORT=1234"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("<docker>"), HasSubstr("<--network><host>"),
                                HasSubstr("<launch><--nproc><4><--max-restarts><3><--nnodes><2><--"
                                          "node-rank><1><--host><10.0.0.1><--port><1234><-->")));
  const ProcessResult printed =
      run({"scripts/container/train", "--print", "--host", "h", "--nodes", "2", "a.yaml"});
  EXPECT_THAT(printed.out,
              AllOf(testing::StartsWith("docker run "),
                    HasSubstr("--host h --port 29500 -- train a.yaml"), Not(HasSubstr("<"))));
  EXPECT_EQ(run({"scripts/container/train", "--nodes", "2", "a.yaml"}).exit_code, 64)
      << "without an address";
  EXPECT_EQ(run({"scripts/container/train"}).exit_code, 64);
  EXPECT_EQ(run({"scripts/container/train", "--engine"}).exit_code, 64);
  EXPECT_EQ(run({"scripts/container/train", "--engine", "lxc", "a.yaml"}).exit_code, 64);
}

}  // namespace
}  // namespace polysketch::test
