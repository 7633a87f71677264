// SPDX-License-Identifier: Apache-2.0
// Several real processes in one test: each is a fork that meets the others on the loopback
// interface.
#pragma once

#include <ATen/Parallel.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "distributed/world.hpp"
#include "helpers/free_port.hpp"

namespace polysketch::test {

inline Place place_of(int64_t rank, int64_t world, int64_t port) {
  Place place;
  place.rank = place.local_rank = rank;
  place.world = place.local_world = world;
  place.port = port;
  place.source = "test";
  return place;
}

/// Short limits, so that a test of a failure ends soon.
inline DistributedConfig quick_config() {
  DistributedConfig config;
  config.timeout = 20;
  config.step_timeout = 5;
  return config;
}

/// How the processes ended: exit codes, 128 + n for signal n.
struct RankResults {
  std::vector<int> codes;
  bool all_succeeded() const {
    for (const int code : codes) {
      if (code != 0) return false;
    }
    return true;
  }
};

/// Runs body(rank, port) in `world` processes. A process exits with 1 if an expectation failed in
/// it, with the error's code for a UserError (whose text goes to standard error), else with 0. Ends
/// all that have not ended by themselves after `patience`, which fails the test.
inline RankResults run_ranks(int64_t world,
                             const std::function<void(int64_t rank, int64_t port)>& body,
                             std::chrono::seconds patience = std::chrono::seconds(60)) {
  const int64_t port = free_port();
  std::vector<pid_t> processes;
  std::fflush(nullptr);
  for (int64_t rank = 0; rank < world; ++rank) {
    const pid_t process = ::fork();
    if (process == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::signal(SIGPIPE, SIG_IGN);  // as main() does
      at::set_num_threads(1);
      int code = 0;
      try {
        body(rank, port);
        code = testing::Test::HasFailure() ? 1 : 0;
      } catch (const UserError& error) {
        std::fprintf(stderr, "[%d] ERROR %d: %s\n", static_cast<int>(rank),
                     static_cast<int>(error.code()), error.what());
        code = static_cast<int>(error.code());
      } catch (const std::exception& error) {
        std::fprintf(stderr, "[%d] %s\n", static_cast<int>(rank), error.what());
        code = 70;
      }
      std::fflush(nullptr);
      ::_exit(code);
    }
    processes.push_back(process);
  }
  RankResults results;
  results.codes.assign(static_cast<size_t>(world), -1);
  const auto until = std::chrono::steady_clock::now() + patience;
  for (bool open = true; open;) {
    open = false;
    for (size_t i = 0; i < processes.size(); ++i) {
      if (results.codes[i] >= 0) continue;
      int status = 0;
      if (::waitpid(processes[i], &status, WNOHANG) == processes[i]) {
        results.codes[i] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      } else {
        open = true;
      }
    }
    if (open && std::chrono::steady_clock::now() > until) {
      for (size_t i = 0; i < processes.size(); ++i) {
        if (results.codes[i] < 0) ::kill(processes[i], SIGKILL);
      }
      ADD_FAILURE() << "processes did not end by themselves";
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return results;
}

/// Joins the world of run_ranks.
inline std::unique_ptr<World> join(int64_t rank, int64_t world, int64_t port,
                                   const DistributedConfig& config = quick_config()) {
  return World::join({.place = place_of(rank, world, port), .config = config, .device = at::kCPU});
}

}  // namespace polysketch::test
