// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/child_process.hpp"
#include "launch/rank_end.hpp"
#include "launch/screen.hpp"

namespace polysketch {

/// `rank-N.log` in the folder.
std::filesystem::path rank_log_path(const std::filesystem::path& folder, int64_t rank);

/// The processes of one attempt, and what is still on its way from them. The destructor leaves none
/// of them alive, nor any process that they started.
class RankGroup {
 public:
  using Clock = std::chrono::steady_clock;

  /// log_folder: exists; empty: no files.
  RankGroup(Screen& screen, std::filesystem::path log_folder, int64_t attempt);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  /// Throws UserError as ChildProcess does.
  void start(int64_t rank, const std::vector<std::string>& command,
             const std::map<std::string, std::string>& variables);
  std::vector<int64_t> running() const;
  void send(int signal);  ///< to the ranks that still run, not to what they started
  void kill_all();        ///< with what they started

  /// Ranks that have ended since the last call. What they started is killed: it would hold the
  /// pipes.
  std::vector<RankEnd> collect_ended();
  const std::vector<RankEnd>& ends() const {
    return ends_;
  }  ///< in the order in which they were seen

  /// those to read, unless the screen is full
  void add_descriptors(std::vector<pollfd>& descriptors) const;
  void read_output();
  /// When to come back although nothing happens: an ended rank's pipes are held open by a process
  /// that left its group.
  std::optional<Clock::time_point> next_deadline() const;
  bool finished() const;  ///< all have ended and all they wrote is on the screen's queues

 private:
  struct Rank;
  void read(Rank& rank, bool error);

  Screen& screen_;
  std::filesystem::path log_folder_;
  int64_t attempt_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<RankEnd> ends_;
};

}  // namespace polysketch
