// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include <nlohmann/json.hpp>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "distributed/world.hpp"
#include "model/device.hpp"
#include "support/log.hpp"
#include "support/median.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

using nlohmann::ordered_json;

std::vector<int64_t> count_list(const char* option, const std::string& text, int64_t least) {
  std::vector<int64_t> values;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    const auto value = parse_count(word);
    if (!value || *value < least)
      throw UserError(ExitCode::usage,
                      fmt::format("{}: got '{}', want numbers of at least {}, like 1Ki,1Mi", option,
                                  word, least));
    values.push_back(*value);
  }
  if (values.empty()) throw UserError(ExitCode::usage, fmt::format("{}: holds no number", option));
  return values;
}

struct CollectivesArguments {
  std::string sizes = "1Ki,16Ki,256Ki,1Mi,4Mi,16Mi,64Mi";
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
  const std::vector<int64_t> sizes = count_list("--sizes", arguments.sizes, 4);
  const auto world = join_launched_world(DistributedConfig{}, arguments.device, 0);
  const int64_t processes = world->size();
  if (processes == 1) {
    throw UserError(ExitCode::usage,
                    "bench collectives: one process exchanges nothing: polysketch launch --nproc 2 "
                    "-- bench collectives");
  }
  Collectives& all = world->collectives();
  ordered_json rows = ordered_json::array();
  for (const int64_t bytes : sizes) {
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
    std::cout << ordered_json{{"transport", all.transport()},
                              {"world", processes},
                              {"device", device_name(world->device())},
                              {"sizes", rows}}
                     .dump()
              << "\n";
    return;
  }
  std::cout << fmt::format("{} processes over {}, medians of {}\n", processes, all.transport(),
                           arguments.rounds);
  std::cout << "       bytes  all-reduce ms  reduce-scatter ms  all-gather ms  bus GB/s  link GB/s "
               " bus/link\n";
  for (const auto& row : rows) {
    const double bus = row["all_reduce_bus_bytes_per_second"], link = row["link_bytes_per_second"];
    std::cout << fmt::format(
        "{:>12}  {:>13.3f}  {:>17.3f}  {:>13.3f}  {:>8.3f}  {:>9.3f}  {:>8.2f}\n",
        row["bytes"].get<int64_t>(), 1e3 * row["all_reduce_seconds"].get<double>(),
        1e3 * row["reduce_scatter_seconds"].get<double>(),
        1e3 * row["all_gather_seconds"].get<double>(), 1e-9 * bus, 1e-9 * link, bus / link);
  }
}

struct ScalingArguments {
  ConfigArguments config;
  std::string worlds = "1,2";
  int steps = 3;
  bool json = false;
};

std::string quoted_for_shell(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// Figures of `bench step` on that many processes of this machine.
ordered_json measure_step(const ScalingArguments& arguments, int64_t processes,
                          int64_t batch_tokens) {
  std::vector<std::string> words{"/proc/self/exe"};
  if (processes > 1) {
    for (const std::string& word : {std::string("launch"), std::string("--nproc"),
                                    std::to_string(processes), std::string("--")})
      words.push_back(word);
  }
  for (const std::string& word :
       {std::string("bench"), std::string("step"), arguments.config.file, std::string("--json"),
        std::string("--steps"), std::to_string(arguments.steps), std::string("--warmup"),
        std::string("1")}) {
    words.push_back(word);
  }
  for (std::string setting : arguments.config.overrides) {
    words.emplace_back("--set");
    words.push_back(std::move(setting));
  }
  words.emplace_back("--set");
  words.push_back(fmt::format("training.batch_tokens={}", batch_tokens));
  std::array<char, 4096> path{};
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length > 0) words[0].assign(path.data(), static_cast<size_t>(length));
  std::string line;
  for (const std::string& word : words) line += quoted_for_shell(word) + " ";
  FILE* pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr)
    throw UserError(ExitCode::io, "bench scaling: cannot start the program again");
  std::string out;
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    out.append(buffer.data(), n);
  const int status = ::pclose(pipe);
  std::istringstream lines(out);
  for (std::string one; std::getline(lines, one);) {
    const size_t brace = one.find('{');
    if (brace == std::string::npos) continue;
    const ordered_json json = ordered_json::parse(one.substr(brace), nullptr, false);
    if (!json.is_discarded() && json.contains("tokens_per_second")) return json;
  }
  throw UserError(ExitCode::distributed,
                  fmt::format("bench scaling: the step on {} processes gave no figures (exit code "
                              "{}): see the lines above",
                              processes, WIFEXITED(status) ? WEXITSTATUS(status) : 128));
}

void run_scaling(const ScalingArguments& arguments) {
  const std::vector<int64_t> worlds = count_list("--processes", arguments.worlds, 1);
  const Config config = arguments.config.resolve().config;
  ordered_json rows = ordered_json::array();
  for (const bool weak : {false, true}) {
    double base = 0;
    for (const int64_t processes : worlds) {
      log_info(fmt::format("{} scaling, {} processes", weak ? "weak" : "strong", processes));
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
  if (arguments.json) {
    std::cout << ordered_json{{"rows", rows}}.dump() << "\n";
    return;
  }
  std::cout
      << "scaling  processes  threads each  tokens/step  tokens/s  s/step  efficiency  hidden\n";
  for (const auto& row : rows) {
    const std::string hidden =
        row["communication_hidden"].is_number()
            ? fmt::format("{:.2f}", row["communication_hidden"].get<double>())
            : "-";
    std::cout << fmt::format("{:<7}  {:>9}  {:>12}  {:>11}  {:>8.0f}  {:>6.3f}  {:>10.2f}  {:>6}\n",
                             row["scaling"].get<std::string>(), row["processes"].get<int64_t>(),
                             row["threads_each"].dump(), row["batch_tokens"].get<int64_t>(),
                             row["tokens_per_second"].get<double>(),
                             row["seconds_per_step"].get<double>(), row["efficiency"].get<double>(),
                             hidden);
  }
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
  collectives->add_option("--sizes", first->sizes, "bytes of a vector, several with commas")
      ->capture_default_str();
  collectives->add_option("--rounds", first->rounds, "rounds that are timed")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
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
  scaling->add_option("--processes", second->worlds, "numbers of processes, with commas")
      ->capture_default_str();
  scaling->add_option("--steps", second->steps, "steps that are timed")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  scaling->add_flag("--json", second->json, "print one JSON object");
  scaling->callback([second] { run_scaling(*second); });
}

}  // namespace polysketch::commands
