// SPDX-License-Identifier: Apache-2.0
#include "reporting/html_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "reporting/report_style.hpp"
#include "reporting/run_figures.hpp"
#include "reporting/svg_plot.hpp"

namespace polysketch {
namespace {

constexpr int colors = 8;

/// A moving average over the last twentieth of the curve so far, at most a hundredth of the whole: it neither lags where the curve still
/// falls steeply nor jitters where it is flat.
std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& points) {
  const double longest = std::max(1.0, static_cast<double>(points.size()) / 100);
  std::vector<std::pair<double, double>> result;
  double sum = 0, weight = 0;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(y)) {
      result.emplace_back(x, y);
      continue;
    }
    const double keep = 1 - 1 / std::clamp(static_cast<double>(result.size()) / 20, 1.0, longest);
    sum = keep * sum + y;
    weight = keep * weight + 1;
    result.emplace_back(x, sum / weight);
  }
  return result;
}

std::vector<std::pair<double, double>> curve(const RunHistory& run, double StepRow::*figure) {
  std::vector<std::pair<double, double>> points;
  for (const StepRow& row : run.steps) points.emplace_back(row.tokens, row.*figure);
  return points;
}

std::vector<std::pair<double, double>> validation_curve(const RunHistory& run) {
  std::vector<std::pair<double, double>> points;
  for (const ValidationRow& row : run.validations) points.emplace_back(row.tokens, row.loss);
  return points;
}

/// Of one run, training and validation have a colour each; of several, each run has one.
int validation_color(size_t run, size_t runs) { return runs == 1 ? 1 : static_cast<int>(run) % colors; }

std::string label(const RunHistory& run, size_t runs, const char* what) { return runs == 1 ? what : run.name + ", " + what; }

Plot loss_plot(const std::vector<RunHistory>& runs) {
  Plot plot;
  plot.x_label = "tokens";
  plot.y_label = "loss (nats per token)";
  for (size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i) % colors;
    const auto points = curve(runs[i], &StepRow::loss);
    if (!points.empty()) {
      plot.series.push_back({label(runs[i], runs.size(), "training"), color, PlotStyle::faint, points});
      plot.series.push_back({label(runs[i], runs.size(), "training, smoothed"), color, PlotStyle::line, smoothed(points)});
    }
    if (!runs[i].validations.empty()) {
      plot.series.push_back(
          {label(runs[i], runs.size(), "validation"), validation_color(i, runs.size()), PlotStyle::markers, validation_curve(runs[i])});
    }
  }
  return plot;
}

/// The range in which runs are compared: from the lowest loss up to where the curves have been after the first tenth of the tokens.
void focus(Plot& plot) {
  double low = INFINITY, high = -INFINITY, last = 0;
  for (const PlotSeries& series : plot.series) {
    for (const auto& [x, y] : series.points) last = std::isfinite(x) ? std::max(last, x) : last;
  }
  for (const PlotSeries& series : plot.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      if (x >= 0.1 * last && series.style != PlotStyle::faint) high = std::max(high, y);
    }
  }
  if (!(high > low)) return;
  plot.y_low = low;
  plot.y_high = high + 0.15 * (high - low);
}

Plot step_plot(const std::vector<RunHistory>& runs, const char* title, const char* y_label, double StepRow::*figure, bool smooth) {
  Plot plot;
  plot.title = title;
  plot.small = true;
  plot.x_label = "tokens";
  plot.y_label = y_label;
  for (size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i) % colors;
    auto points = curve(runs[i], figure);
    if (smooth) plot.series.push_back({runs[i].name, color, PlotStyle::faint, points});
    plot.series.push_back(
        {runs[i].name + (smooth ? ", smoothed" : ""), color, PlotStyle::line, smooth ? smoothed(points) : std::move(points)});
  }
  return plot;
}

/// A single slow or wild step must not press the rest of the curve flat: the range ends above the 99th percentile.
void tame(Plot& plot, bool from_zero) {
  std::vector<double> values;
  for (const PlotSeries& series : plot.series) {
    for (const auto& [x, y] : series.points) {
      if (std::isfinite(y)) values.push_back(y);
    }
  }
  if (values.size() < 100) return;
  std::sort(values.begin(), values.end());
  const double usual = values[values.size() * 99 / 100];
  if (values.back() > 1.5 * usual) plot.y_high = 1.25 * usual;
  if (from_zero) plot.y_low = 0;
}

/// Small plots go without a key: the large ones above them have it.
std::string figure(const Plot& plot, const std::vector<RunHistory>& runs, bool with_validation) {
  const std::string svg = to_svg(plot);
  if (svg.empty()) return {};
  std::string keys;
  const auto key = [&](int color, const char* mark, const std::string& text) {
    keys += fmt::format("<span class=\"key c{}\"><i class=\"{}\"></i>{}</span>", color, mark, escape_html(text));
  };
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs.size() > 1 && !plot.small) key(static_cast<int>(i) % colors, "", runs[i].name);
    if (runs.size() == 1 && with_validation && !runs[i].steps.empty()) key(0, "", "training");
    if (runs.size() == 1 && with_validation && !runs[i].validations.empty()) key(1, "dot", "validation");
  }
  if (runs.size() > 1 && with_validation) keys += "<span class=\"key\">dots: validation</span>";
  return fmt::format("<figure><figcaption><b>{}</b>{}</figcaption>\n{}</figure>\n", escape_html(plot.title), keys, svg);
}

std::string plots(const std::vector<RunHistory>& runs) {
  Plot detail = loss_plot(runs);
  detail.title = "Loss";
  focus(detail);
  Plot overview = loss_plot(runs);
  overview.title = "Loss, whole run";
  overview.logarithmic_x = overview.logarithmic_y = true;
  Plot norm = step_plot(runs, "Gradient norm", "norm before clipping", &StepRow::gradient_norm, true);
  tame(norm, true);
  Plot speed = step_plot(runs, "Speed", "tokens per second", &StepRow::tokens_per_second, true);
  tame(speed, true);
  return "<h2>Curves</h2>\n<div class=\"plots\">\n" + figure(detail, runs, true) + figure(overview, runs, true) +
         "</div>\n<div class=\"plots three\">\n" +
         figure(step_plot(runs, "Learning rate", "learning rate", &StepRow::learning_rate, false), runs, false) +
         figure(norm, runs, false) + figure(speed, runs, false) + "</div>\n";
}

/// A table with a column for each run. Rows that no run fills are left out; rows in which runs differ stand out if asked for.
std::string table(const std::vector<RunHistory>& runs, const std::vector<std::vector<std::pair<std::string, std::string>>>& columns,
                  bool mark) {
  std::string html = "<div class=\"scroll\"><table>\n";
  if (runs.size() > 1) {
    html += "<thead><tr><th></th>";
    for (const RunHistory& run : runs) html += "<th>" + escape_html(run.name) + "</th>";
    html += "</tr></thead>\n";
  }
  html += "<tbody>\n";
  for (size_t row = 0; row < columns[0].size(); ++row) {
    std::set<std::string> values;
    std::string cells;
    for (const auto& column : columns) {
      values.insert(column[row].second);
      cells += "<td>" + escape_html(column[row].second) + "</td>";
    }
    if (values == std::set<std::string>{""}) continue;
    html += fmt::format("<tr{}><th scope=\"row\">{}</th>{}</tr>\n", mark && values.size() > 1 ? " class=\"differs\"" : "",
                        escape_html(columns[0][row].first), cells);
  }
  return html + "</tbody></table></div>\n";
}

std::string figures(const std::vector<RunHistory>& runs) {
  std::vector<std::vector<std::pair<std::string, std::string>>> columns;
  columns.reserve(runs.size());
  for (const RunHistory& run : runs) columns.push_back(run_figures(run));
  return "<h2>Figures</h2>\n" + table(runs, columns, false);
}

std::string settings(const std::vector<RunHistory>& runs) {
  constexpr std::array highlights{"model.size",
                                  "model.layers",
                                  "model.width",
                                  "model.heads",
                                  "model.hidden",
                                  "model.vocabulary",
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
    const bool differs =
        std::any_of(runs.begin(), runs.end(), [&](const RunHistory& run) { return value_of(run, key) != value_of(runs.front(), key); });
    if (differs && key != "run.name" && key != "run.directory" && std::find(keys.begin(), keys.end(), key) == keys.end())
      keys.push_back(key);
  }
  std::vector<std::vector<std::pair<std::string, std::string>>> columns;
  for (const RunHistory& run : runs) {
    auto& column = columns.emplace_back();
    for (const std::string& key : keys) column.emplace_back(key, value_of(run, key));
  }
  std::string html = "<h2>Settings</h2>\n" + table(runs, columns, runs.size() > 1);
  for (const RunHistory& run : runs) {
    if (!run.config_text.empty()) {
      html += fmt::format("<details><summary>complete configuration of {}</summary><pre>{}</pre></details>\n", escape_html(run.name),
                          escape_html(run.config_text));
    }
  }
  return html;
}

/// run.json: an object of objects of texts.
std::string machine(const std::vector<RunHistory>& runs) {
  std::vector<std::string> keys;
  for (const RunHistory& run : runs) {
    for (const char* part : {"machine", "build"}) {
      if (!run.about.is_object() || !run.about.contains(part) || !run.about[part].is_object()) continue;
      for (const auto& [key, value] : run.about[part].items()) {
        const std::string path = std::string(part) + "/" + key;
        if (std::find(keys.begin(), keys.end(), path) == keys.end()) keys.push_back(path);
      }
    }
  }
  if (keys.empty()) return {};
  std::vector<std::vector<std::pair<std::string, std::string>>> columns;
  for (const RunHistory& run : runs) {
    auto& column = columns.emplace_back();
    for (const std::string& path : keys) {
      const size_t slash = path.find('/');
      const auto part = run.about.is_object() ? run.about.value(path.substr(0, slash), nlohmann::ordered_json::object())
                                              : nlohmann::ordered_json::object();
      const auto found = part.find(path.substr(slash + 1));
      const std::string value = found == part.end() ? "" : found->is_string() ? found->get<std::string>() : found->dump();
      column.emplace_back(path.substr(slash + 1), value);
    }
  }
  return "<h2>Machine and versions</h2>\n" + table(runs, columns, runs.size() > 1);
}

std::string samples(const std::vector<RunHistory>& runs) {
  std::string html;
  for (const RunHistory& run : runs) {
    if (!run.samples) continue;
    html += runs.size() > 1 ? fmt::format("<h2>Samples of {}</h2>\n", escape_html(run.name)) : "<h2>Samples</h2>\n";
    html += "<pre>" + escape_html(*run.samples) + "</pre>\n";
  }
  return html;
}

}  // namespace

std::string html_report(const std::vector<RunHistory>& runs) {
  std::string names;
  for (const RunHistory& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n";
  // Whatever a run's texts hold, a browser fetches and runs nothing.
  html += "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n";
  html += fmt::format("<title>{}</title>\n<style>{}{}</style>\n</head>\n<body>\n<h1>{}</h1>\n", escape_html(names), report_style,
                      plot_style, escape_html(names));
  html += fmt::format("<p class=\"lead\">{}, reported by polysketch</p>\n", runs.size() == 1 ? "training run" : "training runs");
  html += figures(runs) + plots(runs) + samples(runs) + settings(runs) + machine(runs);
  return html + "</body>\n</html>\n";
}

}  // namespace polysketch
