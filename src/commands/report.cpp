// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "commands/commands.hpp"
#include "commands/common.hpp"
#include "commands/number_options.hpp"
#include "evaluation/samples.hpp"
#include "reporting/html_report.hpp"
#include "reporting/run_history.hpp"
#include "reporting/sample_file.hpp"
#include "support/exit.hpp"
#include "support/log.hpp"
#include "support/output_file.hpp"
#include "support/stop_signal.hpp"
#include "support/units.hpp"

namespace polysketch::commands {
namespace {

struct Arguments {
  std::vector<std::string> runs;
  std::string output = "report.html";
  int64_t samples = 0;
  std::string prompt;
  ModelArguments model;  ///< how to load a run's model for samples; its path is each run's
};

/// Samples of the newest checkpoint, shown and kept with those that the run has.
void add_samples_to(RunHistory& run, const Arguments& arguments) {
  ModelArguments model = arguments.model;
  model.path = run.folder.string();
  LoadedModel loaded = load_model(model);
  const std::vector<Sample> samples =
      draw_samples(*loaded.model, *loaded.tokenizer,
                   {.prompt = arguments.prompt,
                    .count = arguments.samples,
                    .context = loaded.config.data.context,
                    .stop = [] { return StopSignal::requested(); }});
  if (samples.empty()) return;
  run.samples = add_samples(run.samples.value_or(""), loaded.checkpoint.step, samples);
  keep_samples(run.folder, *run.samples);
}

void warn_of_damage(const RunHistory& run, const char* file, int64_t rows) {
  if (rows > 0)
    log_warning(fmt::format("{}: {} damaged {} left out", (run.folder / file).string(), rows,
                            rows == 1 ? "row" : "rows"));
}

void report(const Arguments& arguments) {
  arguments.samples > 0 ? StopSignal::install() : StopSignal::install_to_end();
  const OutputFile page("--output", arguments.output);
  std::vector<RunHistory> runs;
  for (const std::string& folder : arguments.runs) {
    require_run_folder(folder);
    runs.push_back(read_run(folder));
    warn_of_damage(runs.back(), "metrics.jsonl", runs.back().damaged_rows);
    warn_of_damage(runs.back(), "evaluations.jsonl", runs.back().damaged_evaluations);
  }
  for (RunHistory& run : runs) {
    if (arguments.samples > 0 && !StopSignal::requested()) add_samples_to(run, arguments);
  }
  tell_names_apart(runs);
  const std::string html = html_report(runs);
  page.write(html);
  log_info(fmt::format("{}: {} of {}", page.place(),
                       format_bytes(static_cast<int64_t>(html.size())),
                       runs.size() == 1 ? "1 run" : fmt::format("{} runs", runs.size())));
  if (!StopSignal::requested()) return;
  log_info("stopped by " + signal_name(StopSignal::number()) +
           ": the page has the samples that were whole by then");
  set_exit_code(ExitCode::stopped);
}

}  // namespace

void add_report(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "report",
      "write a page with curves, figures, evaluations, settings and samples of one or more runs");
  command->footer(
      "  polysketch report runs/demo --output runs/demo/report.html\n"
      "  polysketch report runs/demo --samples 3 --prompt 'And God said'\n"
      "  polysketch report runs/a runs/b --output both.html");
  command->add_option("RUN", arguments->runs, "run folders")->required();
  command
      ->add_option("--output,-o", arguments->output,
                   "the page: one HTML file that needs nothing else; - for standard output")
      ->capture_default_str();
  CLI::Option* samples =
      add_count(*command, "--samples", arguments->samples, 1, 1000,
                "let the newest checkpoint write so many texts of 128 tokens; they are shown in "
                "the page and kept in the run's samples.txt");
  command
      ->add_option("--prompt", arguments->prompt,
                   "text that the samples continue; default: the start of a document")
      ->needs(samples);
  command
      ->add_option("--set", arguments->model.overrides,
                   "for the samples: override a key of the run's configuration, e.g. --set "
                   "data.tokenizer.path=my.model")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->needs(samples);
  command->add_option("--device", arguments->model.device, "for the samples: auto, cpu or cuda:N")
      ->capture_default_str()
      ->needs(samples);
  command->callback([arguments] { report(*arguments); });
}

}  // namespace polysketch::commands
