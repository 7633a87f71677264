// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/operation_log.hpp"
#include "support/error.hpp"

namespace polysketch {

/// What the processes of a run tell each other besides tensors: short texts under keys. Each call
/// returns or throws within seconds. Behind it is c10d's store; a second connection, so that a long
/// wait of another thread does not block it.
class NoticeBoard {
 public:
  virtual ~NoticeBoard() = default;
  virtual void put(const std::string& key, const std::string& text) = 0;
  virtual std::string get(const std::string& key) = 0;  ///< empty if nobody has put it
};

/// Signs of life of this process and a look at those of the others.
///
/// A thread of its own puts a beat on the board every half second, with the newest exchange, and
/// watches that no exchange takes longer than allowed. When one fails or takes too long, diagnose()
/// finds out who is to blame: a process that said why it ends, one whose beat stands still, or else
/// one that is furthest behind.
class FailureWatch {
 public:
  struct Options {
    int64_t rank = 0, world = 1;
    std::vector<std::string> names;  ///< of all processes: "rank 1 (host, process 123)"
    std::string board_name;          ///< of the store, for messages: "host:29500"
    bool serves_board =
        false;  ///< this process serves the store and must not leave before the others have read it
    std::chrono::milliseconds beat{500};
    /// Called on the watch's thread when an exchange takes too long, with what went wrong. Does not
    /// return in the program.
    std::function<void(const std::string& text)> on_stuck;
  };
  FailureWatch(std::shared_ptr<NoticeBoard> board, std::shared_ptr<OperationLog> log,
               Options options);
  ~FailureWatch();

  /// Seconds an exchange may take.
  void set_limit(double seconds);

  /// Who is to blame, in words. Takes at most `patience`; a board that does not answer is blamed on
  /// the process that serves it.
  std::string diagnose(std::chrono::milliseconds patience = std::chrono::milliseconds(3500));

  /// Tells the others that this process ends, and why. The process that serves the board stays
  /// until those that are alive have said the same, at most four seconds. Does not wait for a board
  /// that diagnose() found silent.
  void announce_end(ExitCode code, const std::string& reason);

  /// No more beats nor watching. A thread that waits for a silent board is left to the end of the
  /// process.
  void stop();

 private:
  struct Shared;
  static void watch(Shared& shared);
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace polysketch
