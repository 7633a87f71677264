// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "reporting/html_report.hpp"
#include "reporting/run_history.hpp"
#include "support/log.hpp"
#include "support/output_file.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

void report(const std::vector<std::string>& folders, const std::string& output) {
  StopSignal::install_to_end();
  const OutputFile page("--output", output);
  std::vector<RunHistory> runs;
  for (const std::string& folder : folders) {
    require_run_folder(folder);
    runs.push_back(read_run(folder));
    if (runs.back().damaged_rows > 0)
      log_warning(fmt::format("{}/metrics.jsonl: {} damaged rows left out", folder,
                              runs.back().damaged_rows));
  }
  tell_names_apart(runs);
  const std::string html = html_report(runs);
  page.write(html);
  log_info(fmt::format("{}: {} of {}", page.place(),
                       format_bytes(static_cast<int64_t>(html.size())),
                       runs.size() == 1 ? "1 run" : fmt::format("{} runs", runs.size())));
}

}  // namespace

void add_report(CLI::App& app) {
  struct Options {
    std::vector<std::string> runs;
    std::string output = "report.html";
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "report", "write a page with curves, figures, settings and samples of one or more runs");
  command->add_option("RUN", options->runs, "run folders")->required();
  command
      ->add_option("--output,-o", options->output,
                   "the page: one HTML file that needs nothing else; - for standard output")
      ->capture_default_str();
  command->callback([options] { report(options->runs, options->output); });
}

}  // namespace polysketch::commands
