// SPDX-License-Identifier: Apache-2.0
// Several processes of the program that train together, started as two shells with torchrun's variables would.
#pragma once

#include <memory>

#include "helpers/free_port.hpp"
#include "workplace.hpp"

namespace polysketch::test {

/// torchrun's variables of one process.
inline Words rank_environment(int rank, int world, int port) {
  return {fmt::format("RANK={}", rank),
          fmt::format("WORLD_SIZE={}", world),
          fmt::format("LOCAL_RANK={}", rank),
          fmt::format("LOCAL_WORLD_SIZE={}", world),
          "MASTER_ADDR=127.0.0.1",
          fmt::format("MASTER_PORT={}", port)};
}

class ProcessGroup {
 public:
  /// settings_of: what a rank is given besides (more `--set`), or nothing.
  explicit ProcessGroup(int world, const Words& command, const std::function<Words(int rank)>& more = {}) {
    const int port = free_port();
    for (int rank = 0; rank < world; ++rank) {
      Words words = command;
      if (more) {
        for (const auto& setting : more(rank)) {
          words.push_back("--set");
          words.push_back(setting);
        }
      }
      ranks_.push_back(std::make_unique<RunningProgram>(words, rank_environment(rank, world, port)));
    }
  }
  RunningProgram& operator[](int rank) { return *ranks_.at(static_cast<size_t>(rank)); }
  /// Exit codes of all, in order of rank.
  std::vector<int> wait() {
    std::vector<int> codes;
    for (auto& rank : ranks_) codes.push_back(rank->wait());
    return codes;
  }
  std::string errors() const {
    std::string text;
    for (size_t i = 0; i < ranks_.size(); ++i) text += fmt::format("rank {}:\n{}\n", i, ranks_[i]->errors());
    return text;
  }

 private:
  std::vector<std::unique_ptr<RunningProgram>> ranks_;
};

/// Trains to the end with `world` processes; 1: the program alone, without a launcher's variables.
inline void train_together(const Workplace& place, int world, const std::string& name, const Words& settings = {}) {
  if (world == 1) {
    place.train(name, settings);
    return;
  }
  ProcessGroup group(world, place.train_command(name, settings));
  EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(world), 0)) << group.errors();
}

}  // namespace polysketch::test
