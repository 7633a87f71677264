// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>

#include <nlohmann/json.hpp>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "device/device.hpp"
#include "distributed/world.hpp"
#include "launch/child_process.hpp"
#include "reporting/number_text.hpp"
#include "support/log.hpp"
#include "support/median.hpp"
#include "support/standard_streams.hpp"
#include "support/stop_signal.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::ordered_json;

struct CollectivesArguments {
  std::vector<int64_t> sizes{1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20};
  std::string device = "auto";
  int rounds = 7;
  bool json = false;
};

/// Median over the rounds, of the process that took longest in each.
template <class F>
double time_of(World& world, int rounds, F exchange) {
  std::vector<double> seconds;
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    world.collectives().all_gather_text("", "start together");
    const auto start = std::chrono::steady_clock::now();
    exchange();
    synchronize(world.device());
    std::vector<double> taken{
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
    world.collectives().all_reduce(taken, ReduceOperation::max, "longest time");
    if (round >= 0) seconds.push_back(taken[0]);
  }
  return median(seconds);
}

void run_collectives(const CollectivesArguments& arguments) {
  StopSignal::install_to_end();
  const auto world = join_launched_world(DistributedConfig{}, arguments.device, 0);
  const int64_t processes = world->size();
  if (processes == 1) {
    throw UserError(ExitCode::usage,
                    "bench collectives: one process exchanges nothing: polysketch launch --nproc 2 "
                    "-- bench collectives");
  }
  Collectives& all = world->collectives();
  ordered_json rows = ordered_json::array();
  for (const int64_t bytes : arguments.sizes) {
    const int64_t unit = static_cast<int64_t>(sizeof(float)) * processes,
                  rounded = std::max<int64_t>(1, bytes / unit) * unit;
    const auto options = at::TensorOptions().dtype(at::kFloat).device(world->device());
    const at::Tensor flat = at::zeros({rounded / static_cast<int64_t>(sizeof(float))}, options);
    const at::Tensor part = at::zeros({flat.numel() / processes}, options);
    const double reduce = time_of(*world, arguments.rounds, [&] {
      all.all_reduce(flat, ReduceOperation::sum, "bench")->wait();
    });
    const double scatter =
        time_of(*world, arguments.rounds, [&] { all.reduce_scatter(flat, "bench")->wait(); });
    const double gather =
        time_of(*world, arguments.rounds, [&] { all.all_gather(flat, part, "bench")->wait(); });
    // What the transport does with the same bytes and nothing else: one way from rank 0 to rank 1,
    // on the host.
    const double link = time_of(*world, arguments.rounds, [&] { all.ping(0, 1, rounded); });
    const double w = static_cast<double>(processes), n = static_cast<double>(rounded);
    rows.push_back({{"bytes", rounded},
                    {"all_reduce_seconds", reduce},
                    {"reduce_scatter_seconds", scatter},
                    {"all_gather_seconds", gather},
                    {"all_reduce_bus_bytes_per_second", 2 * (w - 1) / w * n / reduce},
                    {"link_seconds", link},
                    {"link_bytes_per_second", n / link}});
  }
  if (!world->leads()) return;
  if (arguments.json) {
    return print_json({{"transport", all.transport()},
                       {"world", processes},
                       {"device", device_name(world->device())},
                       {"sizes", rows}},
                      -1);
  }
  std::string text = fmt::format("{} processes over {}, medians of {}\n", processes,
                                 all.transport(), arguments.rounds);
  text +=
      "       bytes  all-reduce ms  reduce-scatter ms  all-gather ms  bus GB/s  link GB/s  "
      "bus/link\n";
  for (const auto& row : rows) {
    const double bus = row["all_reduce_bus_bytes_per_second"], link = row["link_bytes_per_second"];
    text += fmt::format("{:>12}  {:>13.3f}  {:>17.3f}  {:>13.3f}  {:>8.3f}  {:>9.3f}  {:>8.2f}\n",
                        row["bytes"].get<int64_t>(), 1e3 * row["all_reduce_seconds"].get<double>(),
                        1e3 * row["reduce_scatter_seconds"].get<double>(),
                        1e3 * row["all_gather_seconds"].get<double>(), 1e-9 * bus, 1e-9 * link,
                        bus / link);
  }
  print(text);
}

struct ScalingArguments {
  ConfigArguments config;
  std::vector<int64_t> worlds{1, 2};
  int steps = 3;
  bool json = false;
};

/// A command of this program, to its end. Its standard error comes out of ours meanwhile.
struct Finished {
  std::string out;
  int code = 0;
};
Finished run_this_program(std::vector<std::string> words) {
  words.insert(words.begin(), "/proc/self/exe");
  ChildProcess child(words, {});
  Finished finished;
  std::array<char, 65536> buffer{};
  while (child.out() >= 0 || child.err() >= 0) {
    std::array<pollfd, 2> pipes{pollfd{child.out(), POLLIN, 0}, pollfd{child.err(), POLLIN, 0}};
    ::poll(pipes.data(), pipes.size(), -1);
    for (const bool error : {false, true}) {
      const int from = error ? child.err() : child.out();
      if (from < 0 || pipes[error ? 1 : 0].revents == 0) continue;
      const ssize_t got = ::read(from, buffer.data(), buffer.size());
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got <= 0) {
        error ? child.close_err() : child.close_out();
      } else if (error) {
        (void)!::write(STDERR_FILENO, buffer.data(), static_cast<size_t>(got));
      } else {
        finished.out.append(buffer.data(), static_cast<size_t>(got));
      }
    }
  }
  int status = 0;
  while (::waitpid(child.id(), &status, 0) < 0 && errno == EINTR) continue;
  finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return finished;
}

/// Figures of `bench step` on that many processes of this machine.
ordered_json measure_step(const ScalingArguments& arguments, int64_t processes,
                          int64_t batch_tokens) {
  std::vector<std::string> words;
  if (processes > 1) words = {"launch", "--nproc", std::to_string(processes), "--"};
  words.insert(words.end(), {"bench", "step", arguments.config.file, "--json", "--steps",
                             std::to_string(arguments.steps), "--warmup", "1"});
  for (std::string setting : arguments.config.overrides) {
    words.emplace_back("--set");
    words.push_back(std::move(setting));
  }
  words.emplace_back("--set");
  words.push_back(fmt::format("training.batch_tokens={}", batch_tokens));
  const Finished step = run_this_program(std::move(words));
  ordered_json json = ordered_json::parse(step.out, nullptr, false);
  if (step.code == 0 && json.is_object() && json.contains("tokens_per_second")) return json;
  throw UserError(
      ExitCode::distributed,
      fmt::format("bench scaling: the step on {} gave no figures (exit code {}): see the "
                  "lines above",
                  processes == 1 ? "1 process" : fmt::format("{} processes", processes),
                  step.code));
}

void run_scaling(const ScalingArguments& arguments) {
  StopSignal::install_to_end();
  const Config config = arguments.config.resolve().config;
  ordered_json rows = ordered_json::array();
  for (const bool weak : {false, true}) {
    double base = 0;
    for (const int64_t processes : arguments.worlds) {
      log_info(fmt::format("{} scaling, {} process{}", weak ? "weak" : "strong", processes,
                           processes == 1 ? "" : "es"));
      const int64_t tokens = config.training.batch_tokens * (weak ? processes : 1);
      const ordered_json step = measure_step(arguments, processes, tokens);
      const double speed = step["tokens_per_second"];
      if (base == 0) base = speed / static_cast<double>(processes);
      rows.push_back({{"scaling", weak ? "weak" : "strong"},
                      {"processes", processes},
                      {"batch_tokens", tokens},
                      {"tokens_per_second", speed},
                      {"seconds_per_step", step["seconds_per_step"]},
                      {"efficiency", speed / base / static_cast<double>(processes)},
                      {"communication_hidden", step.value("communication_hidden", ordered_json())},
                      {"threads_each", step.value("threads", ordered_json())}});
    }
  }
  if (arguments.json) return print_json({{"rows", rows}}, -1);
  std::string text =
      "scaling  processes  threads each  tokens/step  tokens/s  s/step  efficiency  hidden\n";
  for (const auto& row : rows) {
    const std::string hidden =
        row["communication_hidden"].is_number()
            ? fmt::format("{:.2f}", row["communication_hidden"].get<double>())
            : "-";
    text +=
        fmt::format("{:<7}  {:>9}  {:>12}  {:>11}  {:>8}  {:>6.3f}  {:>10.2f}  {:>6}\n",
                    row["scaling"].get<std::string>(), row["processes"].get<int64_t>(),
                    row["threads_each"].dump(), row["batch_tokens"].get<int64_t>(),
                    short_rate(row["tokens_per_second"].get<double>()),
                    row["seconds_per_step"].get<double>(), row["efficiency"].get<double>(), hidden);
  }
  print(text);
}

}  // namespace

void add_bench_distributed(CLI::App& bench) {
  CLI::App* collectives = bench.add_subcommand(
      "collectives", "Exchanges among processes: time and bandwidth for each size");
  collectives->footer(
      "Bus bandwidth is 2 (W - 1) / W times the bytes over the time of the all-reduce: what each "
      "link carries. It stands beside what one\n"
      "link carries alone, from rank 0 to rank 1. Memory bandwidth and processors are shared by "
      "processes of one machine.\n\n"
      "  polysketch launch --nproc 2 -- bench collectives\n"
      "  polysketch launch --nproc 2 -- bench collectives --json >collectives.json   # for plan "
      "--collectives");
  auto first = std::make_shared<CollectivesArguments>();
  add_checked(*collectives, "--sizes", "N,…", "1Ki,16Ki,256Ki,1Mi,4Mi,16Mi,64Mi",
              "bytes of a vector, several with commas", [first](const std::string& text) {
                first->sizes = checked_counts("--sizes", text, 4, int64_t{1} << 40);
              });
  add_count(*collectives, "--rounds", first->rounds, 1, 10'000, "rounds that are timed");
  collectives->add_option("--device", first->device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str();
  collectives->add_flag("--json", first->json, "print one JSON object");
  collectives->callback([first] { run_collectives(*first); });

  CLI::App* scaling =
      bench.add_subcommand("scaling", "The training step on 1, 2, … processes of this machine");
  scaling->footer(
      "Strong scaling: the same tokens a step on all numbers of processes. Weak: so many tokens "
      "for each process. Efficiency is tokens a "
      "second\n"
      "for each process against the first number of the list. Processes share the machine's "
      "processors; see the column of threads.\n\n"
      "  polysketch bench scaling configs/mini/base.yaml --processes 1,2 --set "
      "attention.kind=softmax");
  auto second = std::make_shared<ScalingArguments>();
  add_config_arguments(*scaling, second->config);
  add_checked(*scaling, "--processes", "N,…", "1,2", "numbers of processes, with commas",
              [second](const std::string& text) {
                second->worlds = checked_counts("--processes", text, 1, 1024);
              });
  add_count(*scaling, "--steps", second->steps, 1, 10'000, "steps that are timed");
  scaling->add_flag("--json", second->json, "print one JSON object");
  scaling->callback([second] { run_scaling(*second); });
}

}  // namespace polysketch::commands
