// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "data/file_store.hpp"
#include "support/build_info.hpp"
#include "support/crash_report.hpp"
#include "support/error.hpp"
#include "support/exit.hpp"
#include "support/text.hpp"

namespace polysketch {
namespace {

constexpr const char* description =
    "polysketch pretrains GPT-2-style language models with softmax, polynomial and sketched "
    "attention.\n"
    "\n"
    "A run is a configuration file and the files it names:\n"
    "  polysketch tokenizer train --input TEXT... --vocab-size 32000 --output FILE.model\n"
    "  polysketch train configs/RUN.yaml          train, or go on where the run was stopped\n"
    "  polysketch launch --nproc 8 -- train ...   the same on several GPUs or machines\n"
    "  polysketch evaluate perplexity ...         score a split\n"
    "  polysketch generate ...                    continue a text\n"
    "Any key of the configuration can be overridden: --set training.steps=1k.";

constexpr const char* footer =
    "Figures go to standard output, everything else to standard error. Commands that print figures "
    "have --json.\n"
    "Exit codes: 0 done; 64 wrong command line; 65 bad data; 66 input missing; 70 defect of this "
    "program; 73 cannot create output;\n"
    "74 read or write failed; 75 stopped on request, start the same command again to go on; 76 "
    "another process is gone;\n"
    "77 permission; 78 wrong configuration; 80 loss or gradient not finite; 81 no checkpoint can "
    "be loaded; 82 suspected hardware.";

std::string version_text() {
  const auto info = build_info();
  std::string text = fmt::format("polysketch {} ({})", info[0].second, info[1].second);
  for (size_t i = 2; i < info.size(); ++i)
    text += fmt::format("\n  {} {}", info[i].first, info[i].second);
  return text;
}

int report(ExitCode code, const std::string& text) {
  std::fflush(stdout);
  std::fprintf(stderr, "ERROR %d: %s\n", static_cast<int>(code), text.c_str());
  return static_cast<int>(code);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// The innermost subcommand that was recognised.
const CLI::App* innermost(const CLI::App* app) {
  for (auto inner = app->get_subcommands(); !inner.empty(); inner = app->get_subcommands())
    app = inner.front();
  return app;
}

std::string command_name(const CLI::App* app) {
  return app->get_parent() == nullptr ? app->get_name()
                                      : command_name(app->get_parent()) + " " + app->get_name();
}

// The first word of the command line that no command took, or nothing.
std::string unexpected_word(const CLI::App& app, int argc, char** argv) {
  const std::vector<std::string> left = app.remaining(true);
  for (int i = 1; i < argc; ++i) {
    if (std::find(left.begin(), left.end(), argv[i]) != left.end()) return argv[i];
  }
  return "";
}

std::vector<std::string> words_known_to(const CLI::App* app) {
  std::vector<std::string> known;
  for (const auto* command : app->get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(command->get_name());
  for (const auto* option : app->get_options()) {
    for (const auto& name : option->get_lnames()) known.push_back("--" + name);
  }
  return known;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* where = innermost(&app);
  std::string text = first_line(error.what());
  if (const std::string word = unexpected_word(app, argc, argv); !word.empty()) {
    const auto near = nearest(word.substr(0, word.find('=')), words_known_to(where));
    text = fmt::format("'{}' means nothing to '{}'{}", word, command_name(where),
                       near ? "; did you mean '" + *near + "'?" : "");
  }
  if (!text.ends_with('?') && !text.ends_with('.')) text += '.';
  return report(ExitCode::usage, fmt::format("{} See '{} --help'.", text, command_name(where)));
}

// A full disk behind standard output must not pass for success. A pipe whose reader went away
// (head) is none of our business.
int flush_output() {
  std::cout.flush();
  std::fflush(stdout);
  struct stat status {};
  const bool is_pipe =
      fstat(STDOUT_FILENO, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
  if (is_pipe || (std::cout.good() && std::ferror(stdout) == 0)) return 0;
  return report(ExitCode::io, "standard output: cannot write: is the disk full?");
}

int run(int argc, char** argv) {
  CLI::App app(description, "polysketch");
  app.footer(footer);
  app.set_version_flag("--version", version_text,
                       "print the version of the program and of all it is built from");
  app.set_help_flag("-h,--help", "print this help");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  commands::add_train(app);
  commands::add_evaluate(app);
  commands::add_generate(app);
  commands::add_tokenizer(app);
  commands::add_data(app);
  commands::add_plan(app);
  commands::add_bench(app);
  commands::add_config(app);
  commands::add_checkpoint(app);
  commands::add_report(app);
  commands::add_launch(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return usage_error(app, error, argc, argv);
    app.exit(error);  // prints the help or the version asked for
  }
  const int failed = flush_output();
  return failed != 0 ? failed : static_cast<int>(exit_code_slot());
}

int run_and_report(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const UserError& error) {
    return report(error.code(), error.what());
  } catch (const std::exception& error) {
    return report(ExitCode::internal, "internal: " + first_line(error.what()));
  }
}

}  // namespace
}  // namespace polysketch

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of one write, not the end of a run
  polysketch::install_crash_report();
  const int code = polysketch::run_and_report(argc, argv);
  polysketch::close_object_stores();
  return code;
}
