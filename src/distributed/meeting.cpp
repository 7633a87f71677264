// SPDX-License-Identifier: Apache-2.0
#include "distributed/meeting.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "support/build_info.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

using namespace std::chrono_literals;

[[noreturn]] void fail_to_meet(const std::string& text) {
  throw UserError(ExitCode::distributed, text);
}

/// A listening socket on one address only: c10d's store has no password, so who can reach it can
/// speak to it.
int listen_on(const std::string& address, int64_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const int problem = ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (problem != 0)
    fail_to_meet(fmt::format("{}:{}: cannot be resolved: {}: set MASTER_ADDR", address, port,
                             ::gai_strerror(problem)));
  int reason = 0;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const int fd = ::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol);
    if (fd < 0) continue;
    const int yes = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (::bind(fd, one->ai_addr, one->ai_addrlen) == 0 && ::listen(fd, 1024) == 0) {
      ::freeaddrinfo(found);
      return fd;
    }
    reason = errno;
    ::close(fd);
  }
  ::freeaddrinfo(found);
  // the name of this machine elsewhere, as in a container: let c10d listen everywhere
  if (reason == EADDRNOTAVAIL) return -1;
  fail_to_meet(fmt::format(
      "{}:{}: cannot listen: {}{}", address, port, std::strerror(reason),
      reason == EADDRINUSE ? ": another process has the port: choose another MASTER_PORT" : ""));
}

std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }
std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

class StoreBoard final : public NoticeBoard {
 public:
  explicit StoreBoard(StorePointer store) : store_(std::move(store)) {}
  void put(const std::string& key, const std::string& text) override {
    store_->set(key, bytes_of(text));
  }
  std::string get(const std::string& key) override {
    return store_->check({key}) ? text_of(store_->get(key)) : "";
  }

 private:
  StorePointer store_;
};

struct MeetingPlace {
  const Place place;
  const DistributedConfig config;
  const at::Device device;
  const std::chrono::steady_clock::time_point until_;
  Meeting met;

  void open_store();
  void meet();
};

void MeetingPlace::open_store() {
  const auto timeout = std::chrono::seconds(config.timeout);
  const std::string prefix = store_prefix(place);
  try {
    if (!place.file.empty()) {
      auto file = c10::make_intrusive<c10d::FileStore>(place.file, static_cast<int>(place.world));
      file->setTimeout(timeout);
      met.store = c10::make_intrusive<c10d::PrefixStore>(prefix, file);
      return;
    }
    c10d::TCPStoreOptions tcp;
    tcp.port = static_cast<uint16_t>(place.port);
    tcp.isServer = serves_store(place);
    tcp.numWorkers = static_cast<size_t>(place.world);
    tcp.waitWorkers = false;  // who is absent is found out below, by name
    tcp.timeout = timeout;
    if (tcp.isServer) {
      const std::string& wanted = config.address;
      const int fd = listen_on(wanted.empty() ? place.host : wanted, place.port);
      if (fd >= 0) tcp.masterListenFd = fd;
    }
    const std::string server =
        tcp.isServer && !config.address.empty() ? config.address : place.host;
    met.store = c10::make_intrusive<c10d::PrefixStore>(
        prefix, c10::make_intrusive<c10d::TCPStore>(server, tcp));
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    const std::string reason =
        std::string(error.what()).substr(0, std::string(error.what()).find('\n'));
    fail_to_meet(
        fmt::format("{}: rank {} cannot reach the place where the {} processes meet ({}): is rank "
                    "0 running, and is the port open?",
                    meeting_name(place), place.rank, place.world, reason));
  }
}

// Every process leaves its card; each then waits for all cards and so knows by name who is missing.
void MeetingPlace::meet() {
  const nlohmann::json card{{"host", host_name()},
                            {"process", ::getpid()},
                            {"world", place.world},
                            {"device", device.str()}};
  const auto key = [](int64_t rank) { return fmt::format("card/{}", rank); };
  try {
    const std::string world = std::to_string(place.world);
    const std::string first =
        text_of(met.store->compareSet("world", bytes_of(""), bytes_of(world)));
    if (first != world) {
      fail_to_meet(fmt::format(
          "rank {} counts {} processes, the others {}: start all with the same WORLD_SIZE",
          place.rank, world, first));
    }
    if (met.store->add(fmt::format("taken/{}", place.rank), 1) != 1) {
      const std::string other = met.store->check({key(place.rank)})
                                    ? text_of(met.store->get(key(place.rank)))
                                    : "another process";
      fail_to_meet(fmt::format(
          "rank {} is taken twice, by this process ({}) and by {}: give each process its own RANK",
          place.rank, card.dump(), other));
    }
    met.store->set(key(place.rank), bytes_of(card.dump()));
    // The process that serves the store gives up last, or the others would lose it before they know
    // who is absent.
    const auto until = until_ + (serves_store(place) ? 1s : 0s);
    std::vector<int64_t> absent;
    for (auto pause = 10ms;; pause = std::min<std::chrono::milliseconds>(500ms, 2 * pause)) {
      absent.clear();
      for (int64_t rank = 0; rank < place.world; ++rank) {
        if (!met.store->check({key(rank)})) absent.push_back(rank);
      }
      if (absent.empty()) break;
      if (std::chrono::steady_clock::now() > until) {
        fail_to_meet(fmt::format(
            "{}: after {} s {} of {} did not come: look at the output of the missing processes",
            meeting_name(place), config.timeout, list_ranks(absent), place.world));
      }
      std::this_thread::sleep_for(pause);
    }
    for (int64_t rank = 0; rank < place.world; ++rank) {
      const nlohmann::json other = nlohmann::json::parse(text_of(met.store->get(key(rank))));
      met.hosts.push_back(other.at("host"));
      met.names.push_back(fmt::format("rank {} ({}, process {})", rank, met.hosts.back(),
                                      other.at("process").get<int64_t>()));
      const bool same_gpu = device.is_cuda() && other.at("host") == card.at("host") &&
                            other.at("device") == card.at("device");
      if (rank != place.rank && same_gpu) met.shares_gpu = true;
    }
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    fail_to_meet(fmt::format(
        "{}: rank {} lost the place where the processes meet ({}): look at the output of rank 0",
        meeting_name(place), place.rank,
        reason.substr(0, std::min<size_t>(200, reason.find('\n')))));
  }
}

}  // namespace

std::string list_ranks(const std::vector<int64_t>& ranks) {
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

bool serves_store(const Place& place) {
  return place.file.empty() && !place.agent_store && place.rank == 0;
}

std::string meeting_name(const Place& place) {
  return place.file.empty() ? fmt::format("{}:{}", place.host, place.port) : place.file;
}

std::shared_ptr<NoticeBoard> make_notice_board(const StorePointer& store) {
  return std::make_shared<StoreBoard>(store->clone());
}

std::string own_address_towards(const std::string& host, int64_t port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  const int problem = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (problem != 0) {
    fail_to_meet(fmt::format(
        "{}: cannot be resolved: {}: set MASTER_ADDR to a name or address that this machine knows",
        host, ::gai_strerror(problem)));
  }
  std::string address;
  for (const addrinfo* one = found; one != nullptr && address.empty(); one = one->ai_next) {
    const int fd = ::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    // Nothing is sent: connecting only chooses the route, and with it the address on this side.
    if (::connect(fd, one->ai_addr, one->ai_addrlen) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0) {
      char text[NI_MAXHOST] = "";
      if (::getnameinfo(reinterpret_cast<const sockaddr*>(&own), size, text, sizeof text, nullptr,
                        0, NI_NUMERICHOST) == 0)
        address = text;
    }
    ::close(fd);
  }
  ::freeaddrinfo(found);
  if (address.empty())
    fail_to_meet(fmt::format(
        "{}: there is no route from this machine: check the network, or MASTER_ADDR", host));
  return address;
}

Meeting meet_others(const Place& place, const DistributedConfig& config, const at::Device& device) {
  // A store that has accepted a connection is waited for without a limit by c10d, as when another
  // program has the port: so on a thread that can be left behind.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(config.timeout);
  const auto work = std::make_shared<MeetingPlace>(MeetingPlace{place, config, device, until, {}});
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> meeting = done->get_future();
  std::thread([work, done] {
    try {
      work->open_store();
      work->meet();
      done->set_value();
    } catch (...) {
      done->set_exception(std::current_exception());
    }
  }).detach();
  if (meeting.wait_until(until + 2s) != std::future_status::ready) {
    fail_to_meet(
        fmt::format("{}: rank {} cannot reach the place where the {} processes meet (it has not "
                    "answered for {} s): is rank 0 "
                    "running, and does no other program listen at this port?",
                    meeting_name(place), place.rank, place.world, config.timeout));
  }
  meeting.get();
  return std::move(work->met);
}

}  // namespace polysketch
