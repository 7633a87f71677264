// SPDX-License-Identifier: Apache-2.0
// Machines for a test: network namespaces joined by a bridge that stands in one of its own, so that
// nothing outside is touched.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "helpers/test_helpers.hpp"

namespace polysketch::test {

/// A line for the shell; `ip` and `tc` may lie where only root's PATH leads.
inline ProcessResult shell(const std::string& line) {
  return run_process({"sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; set -e; " + line});
}

/// Machine m has the interface eth0 with 10.77.0.(m+1); the other end of its cable is port<m> of
/// the bridge.
class Network {
 public:
  /// Why there can be none here; empty if there can.
  static std::string why_not() {
    const std::string name = fmt::format("polysketch-{}-try", ::getpid());
    const ProcessResult tried =
        shell(fmt::format("ip netns add {0}; trap 'ip netns del {0}' EXIT; ip -n {0} link add eth0 "
                          "type veth peer name port0; ip -n {0} "
                          "link add hub type bridge",
                          name));
    if (tried.exit_code == 0) return "";
    return "no network namespaces here (root, veth, a bridge and iproute2 are needed): " +
           tried.err.substr(0, tried.err.find('\n'));
  }

  explicit Network(int machines) : machines_(machines) {
    remove_of_the_dead();
    std::string line = fmt::format(
        "ip netns add {0}; ip -n {0} link add hub type bridge; ip -n {0} link set hub up; ",
        bridge());
    for (int m = 0; m < machines; ++m) {
      line += fmt::format(
          "ip netns add {1}; ip -n {0} link add port{2} type veth peer name eth0 netns {1}; ip -n "
          "{0} link set port{2} master hub up; "
          "ip -n {1} link set lo up; ip -n {1} address add {3}/24 dev eth0; ip -n {1} link set "
          "eth0 up; ",
          bridge(), name(m), m, address(m));
    }
    must(line);
  }
  ~Network() {
    std::string line = fmt::format("set +e; ip netns del {}; ", bridge());
    for (int m = 0; m < machines_; ++m) line += fmt::format("ip netns del {}; ", name(m));
    shell(line);
  }
  Network(const Network&) = delete;

  static std::string address(int machine) { return fmt::format("10.77.0.{}", machine + 1); }

  /// Moves the calling thread to the machine.
  void enter(int machine) const {
    const int fd = ::open(("/run/netns/" + name(machine)).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) std::abort();
    ::close(fd);
  }

  void take_link_down(int machine) const {
    must(fmt::format("ip -n {} link set eth0 down", name(machine)));
  }
  /// The link stays up, and every packet vanishes, in both directions.
  void blackhole(int machine) const {
    must(
        fmt::format("tc -n {0} qdisc add dev eth0 root blackhole; tc -n {1} qdisc add dev port{2} "
                    "root blackhole",
                    name(machine), bridge(), machine));
  }
  /// In both directions.
  void slow_down(int machine, const std::string& rate) const {
    const std::string how = fmt::format("root tbf rate {} burst 16kb latency 2s", rate);
    must(fmt::format("tc -n {0} qdisc add dev eth0 {3}; tc -n {1} qdisc add dev port{2} {3}",
                     name(machine), bridge(), machine, how));
  }
  /// A socket on the machine at which somebody listens who never answers. Close it.
  int occupy(int machine, int port) const {
    int fd = -1;
    std::thread([&] {
      enter(machine);
      fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_port = htons(static_cast<uint16_t>(port));
      if (::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 || ::listen(fd, 16) != 0)
        ADD_FAILURE() << "port " << port;
    }).join();
    return fd;
  }
  /// Who is still there, as `ip netns pids` says.
  std::vector<pid_t> processes() const {
    std::vector<pid_t> all;
    for (int m = 0; m < machines_; ++m) {
      std::istringstream found(shell("ip netns pids " + name(m)).out);
      for (pid_t process = 0; found >> process;) all.push_back(process);
    }
    return all;
  }

 private:
  std::string name(int machine) const {
    return fmt::format("polysketch-{}-{}-{}", owner_, number_, machine);
  }
  std::string bridge() const { return fmt::format("polysketch-{}-{}-hub", owner_, number_); }
  static void must(const std::string& line) {
    const ProcessResult result = shell(line);
    if (result.exit_code != 0) throw std::runtime_error(line + ": " + result.err);
  }
  // What a killed test left.
  static void remove_of_the_dead() {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator("/run/netns", none)) {
      const std::string name = entry.path().filename().string();
      pid_t owner = 0;
      if (std::sscanf(name.c_str(), "polysketch-%d-", &owner) == 1 && owner > 0 &&
          ::kill(owner, 0) != 0 && errno == ESRCH)
        shell("ip netns del " + name);
    }
  }
  static int next_number() {
    static int last = 0;
    return ++last;
  }
  const pid_t owner_ = ::getpid();  // the same in a child
  const int number_ = next_number();
  int machines_;
};

}  // namespace polysketch::test
