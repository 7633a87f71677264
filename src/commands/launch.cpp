// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "commands/commands.hpp"
#include "commands/number_options.hpp"
#include "launch/place.hpp"
#include "support/error.hpp"
#include "support/exit.hpp"
#include "support/standard_streams.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  LaunchOptions options;
  std::string restart_on = "signal,70,74,76";
  bool where = false, json = false;
};

/// The program that runs now, under its own name in lists of processes; the file itself if that was
/// replaced meanwhile.
std::string this_program() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  return error || !std::filesystem::exists(path, error) ? "/proc/self/exe" : path.string();
}

void print_place(bool json) {
  const Place place = find_place(process_environment());
  if (json) {
    return print_json({{"rank", place.rank},
                       {"world", place.world},
                       {"local_rank", place.local_rank},
                       {"local_world", place.local_world},
                       {"host", place.host},
                       {"port", place.port},
                       {"file", place.file},
                       {"agent_store", place.agent_store},
                       {"attempt", place.attempt},
                       {"source", place.source},
                       {"note", place.note}},
                      -1);
  }
  print(describe(place) + (place.note.empty() ? "" : "; " + place.note) + "\n");
}

/// Whether standard output is one document, which a '[rank] ' before each line would spoil.
bool prints_a_document(const std::vector<std::string>& command) {
  if (command.size() > 1 && command[0] == "config" && command[1] != "check") return true;
  return std::any_of(command.begin(), command.end(), [](const std::string& word) {
    return word == "--json" || word == "-" || word.ends_with("=-");
  });
}

void run(Arguments& arguments) {
  if (arguments.where) return print_place(arguments.json);
  LaunchOptions& options = arguments.options;
  options.restart_on = parse_restart_rule(arguments.restart_on);
  if (options.command.empty())
    throw UserError(ExitCode::usage,
                    "launch: nothing to launch: give the command of a rank behind --, as: launch "
                    "--nproc 2 -- train CONFIG");
  if (options.command.front() == "launch")
    throw UserError(ExitCode::usage, "launch: launches anything but itself");
  options.document = prints_a_document(options.command);
  options.command.insert(options.command.begin(), this_program());
  set_exit_code(static_cast<ExitCode>(launch(options)));
}

}  // namespace

void add_launch(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("launch", "Start a command as several processes that train one model");
  command->footer(
      "Each process gets its rank in the variables that torchrun sets (RANK, WORLD_SIZE, "
      "LOCAL_RANK, …), takes the GPU of its local rank, "
      "and its\n"
      "share of the processors (OMP_NUM_THREADS; one that is set already stays, and "
      "training.threads wins over both). Its output comes out "
      "line\n"
      "by line behind '[rank] '; with --json or --output - in the command, and for what config "
      "prints, "
      "standard output is the document of rank "
      "0 alone, as it is.\n\n"
      "  polysketch launch --nproc 8 -- train configs/pg19/small-8k-softmax.yaml\n"
      "  polysketch launch --nproc 8 --max-restarts 3 --log-dir runs/logs -- train "
      "configs/pg19/small-8k-softmax.yaml --set "
      "training.steps=10k\n\n"
      "Two machines, with the same command on both but for --node-rank 0 and 1:\n"
      "  polysketch launch --nproc 8 --nnodes 2 --node-rank 0 --host node-a --port 29500 -- train "
      "CONFIG\n\n"
      "Every signal that asks for an end (SIGTERM, SIGINT, SIGHUP, SIGUSR1 and the like) is passed "
      "on once: the processes finish the step,\n"
      "save and end with 75, and so does launch. A second SIGTERM, SIGINT, SIGQUIT, SIGUSR1 or "
      "SIGUSR2 kills them. When one process fails the others are ended, and the whole group starts "
      "again "
      "and goes on from the last checkpoint, up "
      "to\n"
      "--max-restarts times. The exit code is that of the process that failed first by its own "
      "fault; 128 + n if signal n killed it.\n"
      "Under torchrun, srun or mpirun leave launch out: they start the processes. "
      "docs/distributed.md says more.");
  const auto arguments = std::make_shared<Arguments>();
  LaunchOptions& options = arguments->options;
  add_count(*command, "--nproc", options.local_world, 1, 1024,
            "processes on this machine, one for each GPU");
  add_count(*command, "--nnodes", options.nodes, 1, 65'536,
            "machines, each of which runs this command");
  add_count(*command, "--node-rank", options.node_rank, 0, 65'535,
            "number of this machine, from 0");
  command->add_option("--host", options.host, "address of machine 0, where all meet")
      ->capture_default_str();
  add_count(*command, "--port", options.port, 1, 65'535,
            "port of machine 0, where all meet; default: a free one");
  add_count(*command, "--max-restarts", options.max_restarts, 0, 1'000'000,
            "how often the group is started anew after a failure");
  command
      ->add_option("--restart-on", arguments->restart_on,
                   "failures that are worth it: 'signal' (killed by one) and exit codes; or none")
      ->type_name("LIST")
      ->capture_default_str();
  constexpr double longest = 365 * 86400.0;
  add_duration(*command, "--grace", options.grace, 0, longest, "30s",
               "time from SIGTERM to SIGKILL for the others when one failed");
  add_duration(*command, "--stop-grace", options.stop_grace, 0, longest, "10min",
               "time to save and end after a signal to stop");
  command
      ->add_option("--log-dir", options.log_folder,
                   "folder in which rank-N.log gets the output of rank N, too")
      ->type_name("DIR");
  command->add_flag(
      "--where", arguments->where,
      "only print which rank the launcher's variables make this process, and where all meet");
  command->add_flag("--json", arguments->json, "print --where as JSON")->needs("--where");
  command
      ->add_option("command", options.command, "command of this program and its words, behind --")
      ->type_name("-- COMMAND …");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace polysketch::commands
