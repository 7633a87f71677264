// SPDX-License-Identifier: Apache-2.0
#include "distributed/world.hpp"

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "device/device.hpp"
#include "distributed/failure_watch.hpp"
#include "distributed/group_collectives.hpp"
#include "distributed/meeting.hpp"
#include "support/build_info.hpp"
#include "support/cuda_module.hpp"
#include "support/durable_file.hpp"
#include "support/log.hpp"
#include "support/standard_streams.hpp"

namespace polysketch {

using namespace std::chrono_literals;

struct World::State {
  Options options;
  StorePointer store;
  std::shared_ptr<OperationLog> log = std::make_shared<OperationLog>();
  std::unique_ptr<FailureWatch> watch;
  c10::intrusive_ptr<c10d::Backend> tensors, host;
  std::unique_ptr<Collectives> collectives;
  std::vector<std::string> hosts, names;
  std::string dump_folder;
  bool shares_gpu = false;
  std::atomic<int64_t> step{0};
  std::atomic<bool> failed{false}, patient{false};
  int exceptions = std::uncaught_exceptions();

  bool connected() const { return store != nullptr; }
  double limit() const {
    const double start = static_cast<double>(options.config.timeout);
    return step > 1 && !patient ? std::min(start, static_cast<double>(options.config.step_timeout))
                                : start;
  }

  void connect_groups();
  std::string describe_failure(const std::string& operation, const std::string& error);
  [[noreturn]] void fail(const OperationRecord& record, const std::string& error);
  void stuck(const std::string& text);
  void dump();
};

void World::State::connect_groups() {
  const Place& place = options.place;
  const int rank = static_cast<int>(place.rank), world = static_cast<int>(place.world);
  const auto timeout = std::chrono::milliseconds(1000 * options.config.timeout);
  const std::string address =
      !options.config.address.empty()
          ? options.config.address
          : (place.file.empty() ? own_address_towards(place.host, place.port) : "");
  const auto gloo = [&](const std::string& name) {
    auto group = c10d::ProcessGroupGloo::Options::create(timeout);
    group->devices.push_back(
        address.empty()
            ? c10d::ProcessGroupGloo::createDefaultDevice(/*lazyInit=*/false)
            : c10d::ProcessGroupGloo::createDeviceForHostname(address, /*lazyInit=*/false));
    return c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>(name, store), rank, world, group);
  };
  std::string doing = "connecting the hosts over Gloo";
  std::string transport = "gloo";
  try {
    host = gloo("host");
    if (options.device.is_cuda()) {
      doing = "connecting the GPUs over NCCL";
      transport = "nccl";
      const CudaModule& module = load_cuda_module();
      if (shares_gpu) {
        // NCCL refuses two processes on one GPU of a machine. Taken for two machines they talk over
        // sockets, which shows whether they do it right, not how fast.
        log_warning(
            fmt::format("rank {} shares its GPU ({}) with another process: this is for tests only",
                        place.rank, options.device.str()));
        ::setenv("NCCL_HOSTID", fmt::format("{}-{}", host_name(), place.rank).c_str(), 0);
        ::setenv("NCCL_MNNVL_ENABLE", "0", 0);
        ::setenv("NCCL_NET", "Socket", 0);
      }
      auto nccl_store = c10::make_intrusive<c10d::PrefixStore>("nccl", store);
      auto* raw = static_cast<c10d::Backend*>(module.create_nccl(
          nccl_store.get(), rank, world, options.device.index(), timeout.count() + 60'000));
      if (raw == nullptr) throw std::runtime_error(module.last_error());
      tensors = c10::intrusive_ptr<c10d::Backend>::reclaim(raw);
    } else {
      tensors = gloo("tensors");
    }
    GroupOptions group;
    group.tensors = tensors;
    group.host = host;
    group.transport = transport;
    group.log = log;
    group.fail = [this](const OperationRecord& record, const std::string& error) {
      fail(record, error);
    };
    group.limit = [this] { return limit(); };
    collectives = make_group_collectives(std::move(group));
    // Connections are made at the first exchange: one now, so that what is wrong with them shows
    // here.
    doing = "the first exchange";
    for (const auto& where : {at::Device(at::kCPU), options.device}) {
      at::Tensor one = at::ones({world}, at::TensorOptions().dtype(at::kFloat).device(where));
      collectives->all_reduce(one, ReduceOperation::sum, "first contact")->wait();
      require(one.sum().item<float>() == static_cast<float>(world) * static_cast<float>(world),
              "the first exchange gave a wrong sum");
    }
  } catch (const UserError&) {
    throw;
  } catch (const std::exception& error) {
    throw UserError(ExitCode::distributed,
                    fmt::format("{} of {} processes failed on rank {}: {}: can all machines reach "
                                "{}? set distributed.address",
                                doing, world, rank, std::string(error.what()).substr(0, 300),
                                address.empty() ? host_name() : address));
  }
}

void World::State::dump() {
  if (dump_folder.empty()) return;
  const std::string path =
      fmt::format("{}/collectives-rank{}.txt", dump_folder, options.place.rank);
  std::ofstream file(path, std::ios::trunc);
  file << names.at(static_cast<size_t>(options.place.rank)) << ", the last " << OperationLog::kKept
       << " exchanges:\n"
       << log->text();
  if (file.flush()) log_info(fmt::format("the last exchanges of this process: {}", path));
}

std::string World::State::describe_failure(const std::string& operation, const std::string& error) {
  dump();
  const std::string blame = watch ? watch->diagnose() : "it is not known who is to blame";
  const std::string where =
      step > 0 ? fmt::format("step {}: ", step.load()) : "before the first step: ";
  std::string reason = error.substr(0, error.find('\n'));
  if (const size_t bracket = reason.find("] ");
      reason.starts_with('[') && bracket != std::string::npos)
    reason.erase(0, bracket + 2);
  return fmt::format(
      "{}{} failed on rank {} of {} ({}): {}; the same command continues from the last checkpoint",
      where, operation, options.place.rank, options.place.world, reason, blame);
}

void World::State::fail(const OperationRecord& record, const std::string& error) {
  failed = true;
  const std::string text =
      describe_failure(fmt::format("{} '{}'", record.operation, record.what), error);
  if (watch) watch->announce_end(ExitCode::distributed, text);
  throw UserError(ExitCode::distributed, text);
}

// On the watch's thread: the one that computes is held up in an exchange and cannot be woken.
void World::State::stuck(const std::string& text) {
  if (failed.exchange(true)) return;  // the other thread has noticed by itself
  const std::string line = describe_failure("an exchange", text);
  watch->announce_end(ExitCode::distributed, line);
  remove_temporary_files();
  std::fprintf(stderr, "ERROR %d: %s\n", static_cast<int>(ExitCode::distributed), line.c_str());
  std::_Exit(static_cast<int>(ExitCode::distributed));
}

World::World(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::unique_ptr<World> World::alone() {
  auto state = std::make_unique<State>();
  state->hosts = {host_name()};
  state->names = {fmt::format("rank 0 ({}, process {})", state->hosts.front(), ::getpid())};
  state->collectives = make_lone_collectives();
  return std::unique_ptr<World>(new World(std::move(state)));
}

std::unique_ptr<World> World::join(const Options& options) {
  if (options.place.source == "none") {
    auto world = alone();
    world->state_->options.device = options.device;
    return world;
  }
  // c10d warns with a call stack for each connection that ends. What matters of it is in our own
  // lines.
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  auto state = std::make_unique<State>();
  State* s = state.get();
  s->options = options;
  Meeting met = meet_others(options.place, options.config, options.device);
  s->store = std::move(met.store);
  s->hosts = std::move(met.hosts);
  s->names = std::move(met.names);
  s->shares_gpu = met.shares_gpu;
  FailureWatch::Options watch;
  watch.rank = options.place.rank;
  watch.world = options.place.world;
  watch.names = s->names;
  watch.board_name = meeting_name(options.place);
  watch.serves_board = serves_store(options.place);
  watch.on_stuck = [s](const std::string& text) { s->stuck(text); };
  s->watch = std::make_unique<FailureWatch>(make_notice_board(s->store), s->log, watch);
  s->watch->set_limit(s->limit());
  std::unique_ptr<World> world(new World(std::move(state)));
  s->connect_groups();
  return world;
}

World::~World() {
  State& s = *state_;
  if (!s.connected()) return;
  bool good = !s.failed && std::uncaught_exceptions() <= s.exceptions;
  if (good) {
    try {
      std::vector<double> nothing{0};
      s.collectives->all_reduce(nothing, ReduceOperation::sum, "farewell");
      // The process that serves the store stays until nobody needs it.
      if (serves_store(s.options.place)) {
        for (int64_t rank = 1; rank < size(); ++rank)
          s.store->wait({fmt::format("gone/{}", rank)}, 5s);
      }
      s.watch->stop();
      s.store->set(fmt::format("gone/{}", rank()), std::vector<uint8_t>{1});
    } catch (const std::exception& error) {
      log_warning(fmt::format("the processes did not part in order: {}",
                              std::string(error.what()).substr(0, 200)));
      good = false;
    }
  }
  s.watch->stop();
  s.collectives.reset();
  if (good) {
    s.tensors.reset();
    s.host.reset();
  } else {
    // Groups with an unfinished exchange would wait for it: they are left to the end of the
    // process.
    (void)s.tensors.release();
    (void)s.host.release();
    (void)s.store.release();
  }
}

int64_t World::rank() const { return state_->options.place.rank; }
int64_t World::size() const { return state_->options.place.world; }
const Place& World::place() const { return state_->options.place; }
at::Device World::device() const { return state_->options.device; }
int64_t World::available_memory() const {
  const int64_t all = available_memory_bytes(device());
  return device().is_cuda() ? all : all / place().local_world;
}
Collectives& World::collectives() { return *state_->collectives; }
const std::vector<std::string>& World::hosts() const { return state_->hosts; }
const std::string& World::name_of(int64_t rank) const {
  return state_->names.at(static_cast<size_t>(rank));
}
void World::dump_into(const std::string& folder) { state_->dump_folder = folder; }

void World::be_patient(bool patient) {
  state_->patient = patient;
  if (state_->watch) state_->watch->set_limit(state_->limit());
}

void World::at_step(int64_t step) {
  State& s = *state_;
  s.step = step;
  s.log->at_step(step);
  if (s.watch) s.watch->set_limit(s.limit());
}

void World::announce_end(ExitCode code, const std::string& reason) {
  State& s = *state_;
  if (!s.watch || s.failed.exchange(true)) return;
  s.watch->announce_end(code, reason);
}

void World::require_alike(const std::vector<std::pair<std::string, std::string>>& facts) {
  if (size() == 1) return;
  const nlohmann::ordered_json own(facts);
  std::vector<std::vector<std::pair<std::string, std::string>>> all;
  for (const std::string& text :
       collectives().all_gather_text(json_text(own, -1), "what must be alike"))
    all.push_back(nlohmann::json::parse(text));
  std::string problems;
  for (size_t i = 0; i < facts.size(); ++i) {
    std::map<std::string, std::vector<int64_t>> who;
    for (size_t rank = 0; rank < all.size(); ++rank)
      who[i < all[rank].size() ? all[rank][i].second : ""].push_back(static_cast<int64_t>(rank));
    if (who.size() == 1) continue;
    // The value of most, of the lower ranks where two have as many.
    const auto most = std::max_element(who.begin(), who.end(), [](const auto& a, const auto& b) {
      return a.second.size() != b.second.size() ? a.second.size() < b.second.size()
                                                : a.second.front() > b.second.front();
    });
    for (const auto& [value, ranks] : who) {
      if (value == most->first) continue;
      std::string where;
      for (const int64_t rank : ranks) where += (where.empty() ? "" : ", ") + name_of(rank);
      problems += fmt::format("{}{} of {} is {}, that of {} is {}", problems.empty() ? "" : "; ",
                              facts[i].first, where, value, list_ranks(most->second), most->first);
    }
  }
  if (problems.empty()) return;
  throw UserError(
      ExitCode::config,
      fmt::format("the processes are not alike: {}: start all with the same program and files",
                  problems));
}

}  // namespace polysketch
