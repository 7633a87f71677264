// SPDX-License-Identifier: Apache-2.0
#include "reporting/html_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "reporting/number_text.hpp"
#include "reporting/report_curves.hpp"
#include "reporting/report_evaluations.hpp"
#include "reporting/report_style.hpp"
#include "reporting/report_table.hpp"
#include "reporting/run_figures.hpp"
#include "reporting/run_overview.hpp"
#include "reporting/sample_file.hpp"
#include "reporting/svg_plot.hpp"

namespace polysketch {
namespace {

std::string table_of(const std::vector<RunHistory>& runs, const char* title,
                     TableColumn (*column)(const RunHistory&)) {
  std::vector<TableColumn> columns;
  columns.reserve(runs.size());
  for (const RunHistory& run : runs) columns.push_back(column(run));
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", title,
                     run_table(runs, columns, false));
}

std::string settings(const std::vector<RunHistory>& runs) {
  constexpr std::array highlights{"model.size",
                                  "model.layers",
                                  "model.width",
                                  "model.heads",
                                  "model.hidden",
                                  "model.vocabulary",
                                  "model.embedding_scale",
                                  "model.dropout",
                                  "attention.kind",
                                  "attention.degree",
                                  "data.corpus",
                                  "data.context",
                                  "training.batch_tokens",
                                  "training.steps",
                                  "training.precision",
                                  "training.device",
                                  "optimizer.kind",
                                  "optimizer.beta1",
                                  "optimizer.beta2",
                                  "optimizer.weight_decay",
                                  "optimizer.clip",
                                  "schedule.kind",
                                  "schedule.peak",
                                  "schedule.warmup",
                                  "run.seed"};
  std::vector<std::string> keys(highlights.begin(), highlights.end());
  // With several runs, whatever tells them apart belongs here too.
  std::set<std::string> all;
  for (const RunHistory& run : runs) {
    for (const auto& [key, value] : run.config) all.insert(key);
  }
  const auto value_of = [](const RunHistory& run, const std::string& key) {
    const auto found = run.config.find(key);
    return found == run.config.end() ? std::string() : found->second;
  };
  for (const std::string& key : all) {
    const bool differs = std::any_of(runs.begin(), runs.end(), [&](const RunHistory& run) {
      return value_of(run, key) != value_of(runs.front(), key);
    });
    if (differs && key != "run.name" && key != "run.directory" &&
        std::find(keys.begin(), keys.end(), key) == keys.end())
      keys.push_back(key);
  }
  std::vector<TableColumn> columns;
  for (const RunHistory& run : runs) {
    auto& column = columns.emplace_back();
    for (const std::string& key : keys) column.emplace_back(key, value_of(run, key));
  }
  std::string html = "<h2>Settings</h2>\n" + run_table(runs, columns, runs.size() > 1);
  for (const RunHistory& run : runs) {
    if (!run.config_text.empty()) {
      html += fmt::format(
          "<details><summary>complete configuration of {}</summary><pre>{}</pre></details>\n",
          escape_html(run.name), escape_html(run.config_text));
    }
  }
  return html;
}

/// run.json: an object of objects of texts.
std::string machine(const std::vector<RunHistory>& runs) {
  std::vector<std::string> keys;
  for (const RunHistory& run : runs) {
    for (const char* part : {"machine", "build"}) {
      if (!run.about.is_object() || !run.about.contains(part) || !run.about[part].is_object())
        continue;
      for (const auto& [key, value] : run.about[part].items()) {
        const std::string path = std::string(part) + "/" + key;
        if (std::find(keys.begin(), keys.end(), path) == keys.end()) keys.push_back(path);
      }
    }
  }
  if (keys.empty()) return {};
  std::vector<TableColumn> columns;
  for (const RunHistory& run : runs) {
    auto& column = columns.emplace_back();
    for (const std::string& path : keys) {
      const size_t slash = path.find('/');
      const auto part = run.about.is_object() ? run.about.value(path.substr(0, slash),
                                                                nlohmann::ordered_json::object())
                                              : nlohmann::ordered_json::object();
      const auto found = part.find(path.substr(slash + 1));
      const std::string value = found == part.end()  ? ""
                                : found->is_string() ? found->get<std::string>()
                                                     : found->dump();
      column.emplace_back(path.substr(slash + 1), value);
    }
  }
  return "<h2>Machine and versions</h2>\n" + run_table(runs, columns, runs.size() > 1);
}

/// The last step's open, those before it folded away.
std::string samples_of(const std::string& file) {
  const std::vector<SampleSection> sections = split_samples(file);
  const auto text = [](const SampleSection& section) {
    const size_t begin = section.text.find_first_not_of('\n'),
                 end = section.text.find_last_not_of('\n');
    const std::string inner =
        begin == std::string::npos ? "" : section.text.substr(begin, end - begin + 1);
    return "<pre>" + escape_html(inner) + "</pre>\n";
  };
  const auto title = [](const SampleSection& section) {
    return section.step ? "step " + group_digits(*section.step) : std::string("before");
  };
  if (sections.empty()) return {};
  std::string html;
  if (sections.back().step) html += "<h3>" + title(sections.back()) + "</h3>\n";
  html += text(sections.back());
  for (size_t i = sections.size() - 1; i-- > 0;)
    html += "<details><summary>" + title(sections[i]) + "</summary>" + text(sections[i]) +
            "</details>\n";
  return html;
}

std::string samples(const std::vector<RunHistory>& runs) {
  std::string html;
  for (const RunHistory& run : runs) {
    if (!run.samples) continue;
    html += runs.size() > 1 ? fmt::format("<h2>Samples of {}</h2>\n", escape_html(run.name))
                            : "<h2>Samples</h2>\n";
    html += samples_of(*run.samples);
  }
  return html;
}

}  // namespace

std::string html_report(const std::vector<RunHistory>& runs) {
  std::string names;
  for (const RunHistory& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" content=\"width=device-width\">\n";
  // Whatever a run's texts hold, a browser fetches and runs nothing.
  html +=
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n";
  html += fmt::format("<title>{}</title>\n<style>{}{}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
                      escape_html(names), report_style, plot_style, escape_html(names));
  html += fmt::format("<p class=\"lead\">{}, reported by polysketch</p>\n",
                      runs.size() == 1 ? "training run" : "training runs");
  html += fmt::format("<div class=\"{}\">\n", runs.size() == 1 ? "beside" : "below") +
          table_of(runs, "Overview", run_overview) + table_of(runs, "Loss", run_figures) +
          "</div>\n" + report_evaluations(runs) + report_curves(runs) + samples(runs) +
          settings(runs) + machine(runs);
  return html + "</body>\n</html>\n";
}

}  // namespace polysketch
