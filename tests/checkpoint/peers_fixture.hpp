// SPDX-License-Identifier: Apache-2.0
// Several processes of a run: as threads that meet in memory, and as real processes on sockets.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint_store.hpp"
#include "checkpoint/peers.hpp"
#include "support/error.hpp"

namespace polysketch::test {

/// How a process ended.
struct Ending {
  bool ok = false;
  int code = 0;  ///< of its UserError; 0 for another exception
  std::string error;
};

inline void expect_all_ok(const std::vector<Ending>& endings) {
  for (size_t rank = 0; rank < endings.size(); ++rank)
    EXPECT_TRUE(endings[rank].ok) << "rank " << rank << ": " << endings[rank].error;
}

/// Where threads meet. One that has left, whether it is done or dead, is missed by those that wait
/// for it, as in a real group.
class MeetingPoint {
 public:
  explicit MeetingPoint(int64_t world) : texts_(static_cast<size_t>(world)) {}

  std::vector<std::string> all_gather(size_t rank, const std::string& text) {
    std::unique_lock guard(mutex_);
    const int64_t own = round_;
    texts_[rank] = text;
    if (++arrived_ == texts_.size()) {
      result_ = texts_;
      arrived_ = 0;
      ++round_;
      changed_.notify_all();
      return result_;
    }
    changed_.wait(guard, [&] { return round_ != own || left_; });
    if (round_ == own) throw UserError(ExitCode::distributed, "a process is gone");
    return result_;
  }
  void leave() {
    const std::lock_guard guard(mutex_);
    left_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> texts_, result_;
  size_t arrived_ = 0;
  int64_t round_ = 0;
  bool left_ = false;
};

/// Runs `body` as each of `world` processes.
inline std::vector<Ending> run_threads(int64_t world,
                                       const std::function<void(const Peers&)>& body) {
  MeetingPoint point(world);
  std::vector<Ending> endings(static_cast<size_t>(world));
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < endings.size(); ++rank) {
    threads.emplace_back([&, rank] {
      Peers peers{static_cast<int64_t>(rank), world,
                  [&point, rank](const std::string& text) { return point.all_gather(rank, text); },
                  0.3};
      try {
        body(peers);
        endings[rank].ok = true;
      } catch (const UserError& error) {
        endings[rank].code = static_cast<int>(error.code());
        endings[rank].error = error.what();
      } catch (const std::exception& error) {
        endings[rank].error = error.what();
      }
      point.leave();
    });
  }
  for (auto& thread : threads) thread.join();
  return endings;
}

/// The same peers, with something done before the exchange of number `at` (from 0).
inline Peers before_exchange(const Peers& peers, int at, const std::function<void()>& action) {
  Peers changed = peers;
  changed.all_gather = [inner = peers.all_gather, at, action,
                        count = 0](const std::string& text) mutable {
    if (count++ == at) action();
    return inner(text);
  };
  return changed;
}

namespace detail {

inline void gone() { throw UserError(ExitCode::distributed, "a process is gone"); }

inline void send_text(int socket, const std::string& text) {
  const uint64_t size = text.size();
  std::string message(reinterpret_cast<const char*>(&size), sizeof(size));
  message += text;
  for (size_t done = 0; done < message.size();) {
    const ssize_t sent = ::send(socket, message.data() + done, message.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) gone();
    done += static_cast<size_t>(sent);
  }
}

inline std::string receive_text(int socket) {
  const auto receive = [&](char* target, size_t size) {
    for (size_t done = 0; done < size;) {
      const ssize_t got = ::recv(socket, target + done, size - done, 0);
      if (got <= 0) gone();
      done += static_cast<size_t>(got);
    }
  };
  uint64_t size = 0;
  receive(reinterpret_cast<char*>(&size), sizeof(size));
  std::string text(size, '\0');
  receive(text.data(), size);
  return text;
}

}  // namespace detail

/// Real processes: a star of sockets around rank 0, made before they are forked. Who dies is missed
/// at once.
class SocketStar {
 public:
  explicit SocketStar(int64_t world) : world_(world), ends_(static_cast<size_t>(world), {-1, -1}) {
    for (size_t rank = 1; rank < ends_.size(); ++rank) {
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_[rank].data()) != 0)
        throw std::runtime_error("no socket");
    }
  }
  ~SocketStar() { keep(-1); }

  /// In a process that is to be `rank`: lets go of the ends that are not its own, so that the death
  /// of their owners shows.
  Peers join(int64_t rank) {
    keep(rank);
    return {rank, world_, [this, rank](const std::string& text) { return all_gather(rank, text); },
            0.5};
  }
  /// In a process that is none of them: lets go of all.
  void keep(int64_t rank) {
    for (size_t other = 1; other < ends_.size(); ++other) {
      if (rank != 0) close_end(ends_[other][0]);
      if (std::cmp_not_equal(other, rank)) close_end(ends_[other][1]);
    }
  }

 private:
  static void close_end(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  std::vector<std::string> all_gather(int64_t rank, const std::string& text) {
    std::vector<std::string> texts(ends_.size());
    if (rank == 0) {
      texts[0] = text;
      for (size_t other = 1; other < ends_.size(); ++other)
        texts[other] = detail::receive_text(ends_[other][0]);
      for (size_t other = 1; other < ends_.size(); ++other) {
        for (const std::string& one : texts) detail::send_text(ends_[other][0], one);
      }
    } else {
      const int socket = ends_[static_cast<size_t>(rank)][1];
      detail::send_text(socket, text);
      for (std::string& one : texts) one = detail::receive_text(socket);
    }
    return texts;
  }

  int64_t world_;
  std::vector<std::array<int, 2>> ends_;
};

}  // namespace polysketch::test
