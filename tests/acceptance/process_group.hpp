// SPDX-License-Identifier: Apache-2.0
// Several processes of the program that train together, started as two shells with torchrun's
// variables would.
#pragma once

#include <map>
#include <memory>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/tensor_file.hpp"
#include "helpers/free_port.hpp"
#include "workplace.hpp"

namespace polysketch::test {

/// torchrun's variables of one process.
inline Words rank_environment(int rank, int world, int port,
                              const std::string& host = "127.0.0.1") {
  return {fmt::format("RANK={}", rank),
          fmt::format("WORLD_SIZE={}", world),
          fmt::format("LOCAL_RANK={}", rank),
          fmt::format("LOCAL_WORLD_SIZE={}", world),
          "MASTER_ADDR=" + host,
          fmt::format("MASTER_PORT={}", port)};
}

class ProcessGroup {
 public:
  /// settings_of: what a rank is given besides (more `--set`), or nothing.
  explicit ProcessGroup(int world, const Words& command,
                        const std::function<Words(int rank)>& more = {}) {
    const int port = free_port();
    for (int rank = 0; rank < world; ++rank) {
      Words words = command;
      if (more) {
        for (const auto& setting : more(rank)) {
          words.push_back("--set");
          words.push_back(setting);
        }
      }
      ranks_.push_back(
          std::make_unique<RunningProgram>(words, rank_environment(rank, world, port)));
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
    for (size_t i = 0; i < ranks_.size(); ++i)
      text += fmt::format("rank {}:\n{}\n", i, ranks_[i]->errors());
    return text;
  }

 private:
  std::vector<std::unique_ptr<RunningProgram>> ranks_;
};

/// Trains to the end with `world` processes; 1: the program alone, without a launcher's variables.
inline void train_together(const Workplace& place, int world, const std::string& name,
                           const Words& settings = {}) {
  if (world == 1) {
    place.train(name, settings);
    return;
  }
  ProcessGroup group(world, place.train_command(name, settings));
  EXPECT_EQ(group.wait(), std::vector<int>(static_cast<size_t>(world), 0)) << group.errors();
}

/// Every tensor of the newest checkpoint, by group and name: bytes.
inline std::map<std::string, std::string> tensors_of(const std::filesystem::path& run) {
  const auto loaded = CheckpointStore(run, {}).newest_valid();
  std::map<std::string, std::string> all;
  if (!loaded) {
    ADD_FAILURE() << run << " has no checkpoint";
    return all;
  }
  for (const FileRecord& record : loaded->manifest.files) {
    if (!record.name.ends_with(".safetensors")) continue;
    const TensorFile file(loaded->directory / record.name);
    for (const TensorInfo& info : file.tensors()) {
      std::string bytes(info.bytes, '\0');
      file.read(info, bytes.data());
      all[record.name.substr(0, 5) + "/" + info.name] = std::move(bytes);
    }
  }
  return all;
}

inline std::vector<double> losses_of(const std::filesystem::path& run) {
  std::vector<double> losses;
  for (const Row& row : metric_rows(run, "step")) losses.push_back(row.at("loss").get<double>());
  return losses;
}

}  // namespace polysketch::test
