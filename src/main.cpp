// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "attention/ops/choice.hpp"
#include "commands/commands.hpp"
#include "data/file_store.hpp"
#include "kernels/cpu/instruction_set.hpp"
#include "support/build_info.hpp"
#include "support/crash_report.hpp"
#include "support/error.hpp"
#include "support/exit.hpp"
#include "support/standard_streams.hpp"
#include "support/system_error.hpp"
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
    "program; 71 out of memory or threads;\n"
    "73 cannot create output; 74 read or write failed; 75 stopped on request, start the same "
    "command again to go on;\n"
    "76 another process is gone; 77 permission; 78 wrong configuration; 80 loss or gradient not "
    "finite; 81 no checkpoint can be loaded;\n"
    "82 suspected hardware; 128 + n ended by signal n. A reader of the output that goes away (| "
    "head) "
    "is no error.";

std::string version_text() {
  const auto info = build_info();
  std::string text = fmt::format("polysketch {} ({})", info[0].second, info[1].second);
  for (size_t i = 2; i < info.size(); ++i)
    text += fmt::format("\n  {} {}", info[i].first, info[i].second);
  text += fmt::format("\n  operations on the CPU (kernels for {}): {}",
                      name(kernels::instruction_set()), ops::operations_in_use(at::kCPU));
  return text;
}

int report(ExitCode code, const std::string& text) {
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

// What is wrong with a word that nobody took.
const char* kind_of_word(const std::string& word, const CLI::App* where) {
  if (word.starts_with('-')) return "unknown option";
  const bool has_commands = !where->get_subcommands([](const CLI::App*) { return true; }).empty();
  return has_commands ? "unknown command" : "unexpected argument";
}

int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* where = innermost(&app);
  std::string text = first_line(error.what());
  if (text == "A subcommand is required") text = "no command is given";
  // The library's own words for an option that is given too often or without its value.
  constexpr std::string_view too_often = ": At Most 1 required but received ";
  constexpr std::string_view nothing = ": 1 required ";
  if (const size_t at = text.find(too_often); at != std::string::npos) {
    text = fmt::format("{}: given {} times, want it once", text.substr(0, at),
                       text.substr(at + too_often.size()));
  } else if (const size_t before = text.find(nothing);
             before != std::string::npos && text.ends_with(" missing")) {
    text = text.substr(0, before) + ": needs a value";
  }
  if (const std::string word = unexpected_word(app, argc, argv); !word.empty()) {
    const auto near = nearest(word.substr(0, word.find('=')), words_known_to(where));
    text = fmt::format("{} '{}'{}", kind_of_word(word, where), word,
                       near ? "; did you mean '" + *near + "'?" : "");
  }
  if (!text.ends_with('?') && !text.ends_with('.')) text += '.';
  return report(ExitCode::usage, fmt::format("{} See '{} --help'.", text, command_name(where)));
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
    std::ostringstream asked_for;  // the help or the version
    app.exit(error, asked_for, asked_for);
    print(asked_for.str());
  }
  return static_cast<int>(exit_code_slot());
}

int run_and_report(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const ReaderGone&) {
    return static_cast<int>(exit_code_slot());  // whoever read had enough
  } catch (const std::exception& error) {
    const ErrorReport found = report_of(error);
    return report(found.code, found.text);
  }
}

// Before the libraries: MKL, which is in LibTorch, ends a program that has no current folder while
// it is loaded, with a code and words that tell nobody anything.
void require_current_folder(int, char**, char**) {
  std::array<char, PATH_MAX> folder{};
  if (getcwd(folder.data(), folder.size()) != nullptr || errno != ENOENT) return;
  constexpr std::string_view text =
      "ERROR 66: the current folder does not exist any more: change to another one\n";
  (void)!write(STDERR_FILENO, text.data(), text.size());
  _exit(static_cast<int>(ExitCode::missing_input));
}

[[gnu::section(".preinit_array"),
  gnu::used]] void (*const before_libraries)(int, char**, char**) = require_current_folder;

}  // namespace
}  // namespace polysketch

int main(int argc, char** argv) {
  polysketch::open_standard_descriptors();
  // A closed pipe and a limit of the size of files are errors of one write, not the end of a run.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  polysketch::install_crash_report();
  const int code = polysketch::run_and_report(argc, argv);
  polysketch::close_object_stores();
  return code;
}
