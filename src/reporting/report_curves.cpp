// SPDX-License-Identifier: Apache-2.0
#include "reporting/report_curves.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "reporting/svg_plot.hpp"

namespace polysketch {
namespace {

constexpr int colors = 8;
constexpr size_t most_marks = 60;  // points of a curve that are shown one by one

/// A moving average over the last twentieth of the curve so far, at most a hundredth of the whole:
/// it neither lags where the curve still falls steeply nor jitters where it is flat.
std::vector<std::pair<double, double>> smoothed(
    const std::vector<std::pair<double, double>>& points) {
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
int validation_color(size_t run, size_t runs) {
  return runs == 1 ? 1 : static_cast<int>(run) % colors;
}

std::string label(const RunHistory& run, size_t runs, const char* what) {
  return runs == 1 ? what : run.name + ", " + what;
}

Plot loss_plot(const std::vector<RunHistory>& runs) {
  Plot plot;
  plot.x_label = "tokens";
  plot.y_label = "loss (nats per token)";
  for (size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i) % colors;
    const auto points = curve(runs[i], &StepRow::loss);
    if (!points.empty()) {
      plot.series.push_back(
          {label(runs[i], runs.size(), "training"), color, PlotStyle::faint, points});
      plot.series.push_back({label(runs[i], runs.size(), "training, smoothed"), color,
                             PlotStyle::line, smoothed(points)});
    }
    if (!runs[i].validations.empty()) {
      plot.series.push_back({label(runs[i], runs.size(), "validation"),
                             validation_color(i, runs.size()), PlotStyle::markers,
                             validation_curve(runs[i])});
    }
  }
  return plot;
}

/// The range in which runs are compared: from the lowest loss up to where the curves have been
/// after the first tenth of the tokens.
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

Plot step_plot(const std::vector<RunHistory>& runs, const char* title, const char* y_label,
               double StepRow::*figure, bool smooth) {
  Plot plot;
  plot.title = title;
  plot.small = true;
  plot.x_label = "tokens";
  plot.y_label = y_label;
  for (size_t i = 0; i < runs.size(); ++i) {
    const int color = static_cast<int>(i) % colors;
    auto points = curve(runs[i], figure);
    if (smooth) plot.series.push_back({runs[i].name, color, PlotStyle::faint, points});
    plot.series.push_back({runs[i].name + (smooth ? ", smoothed" : ""), color, PlotStyle::line,
                           smooth ? smoothed(points) : std::move(points)});
  }
  return plot;
}

/// A single slow or wild step must not press the rest of the curve flat: the range ends above the
/// 99th percentile.
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
    keys += fmt::format("<span class=\"key c{}\"><i class=\"{}\"></i>{}</span>", color, mark,
                        escape_html(text));
  };
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs.size() > 1 && !plot.small) key(static_cast<int>(i) % colors, "", runs[i].name);
    if (runs.size() == 1 && with_validation && !runs[i].steps.empty()) key(0, "", "training");
    if (runs.size() == 1 && with_validation && !runs[i].validations.empty())
      key(1, "dot", "validation");
  }
  if (runs.size() > 1 && with_validation) keys += "<span class=\"key\">dots: validation</span>";
  return fmt::format("<figure><figcaption><b>{}</b>{}</figcaption>\n{}</figure>\n",
                     escape_html(plot.title), keys, svg);
}

std::string plots(const std::vector<RunHistory>& runs) {
  Plot detail = loss_plot(runs);
  detail.title = "Loss";
  focus(detail);
  Plot overview = loss_plot(runs);
  overview.title = "Loss, whole run";
  overview.logarithmic_x = overview.logarithmic_y = true;
  Plot norm =
      step_plot(runs, "Gradient norm", "norm before clipping", &StepRow::gradient_norm, true);
  tame(norm, true);
  Plot speed = step_plot(runs, "Speed", "tokens per second", &StepRow::tokens_per_second, true);
  tame(speed, true);
  return "<h2>Curves</h2>\n<div class=\"plots\">\n" + figure(detail, runs, true) +
         figure(overview, runs, true) + "</div>\n<div class=\"plots three\">\n" +
         figure(step_plot(runs, "Learning rate", "learning rate", &StepRow::learning_rate, false),
                runs, false) +
         figure(norm, runs, false) + figure(speed, runs, false) + "</div>\n";
}

/// What was seen of the attention weights, where a run looked at them (`logging.diagnostics`);
/// figures that no kind has are left out.
std::string diagnostics_plots(const std::vector<RunHistory>& runs) {
  struct Figure {
    const char *title, *y_label;
    double DiagnosticsRow::*value;
  };
  constexpr std::array figures{
      Figure{"Error of the sketch", "relative to exact weights", &DiagnosticsRow::sketch_error},
      Figure{"Smallest normaliser", "of the queries looked at",
             &DiagnosticsRow::smallest_normaliser},
      Figure{"Largest score", "of the queries looked at", &DiagnosticsRow::largest_score},
      Figure{"Weight outside the block", "share", &DiagnosticsRow::share_outside_block},
      Figure{"Effective rank", "of the rows of weights", &DiagnosticsRow::effective_rank}};
  std::string html;
  for (const Figure& wanted : figures) {
    Plot plot;
    plot.title = wanted.title;
    plot.small = true;
    plot.x_label = "tokens";
    plot.y_label = wanted.y_label;
    for (size_t i = 0; i < runs.size(); ++i) {
      const PlotStyle style =
          runs[i].diagnostics.size() > most_marks ? PlotStyle::line : PlotStyle::marked;
      PlotSeries series{runs[i].name, static_cast<int>(i) % colors, style, {}};
      for (const DiagnosticsRow& row : runs[i].diagnostics)
        series.points.emplace_back(row.tokens, row.*wanted.value);
      plot.series.push_back(std::move(series));
    }
    html += figure(plot, runs, false);
  }
  return html.empty()
             ? html
             : "<h2>Attention weights, mean over the layers</h2>\n<div class=\"plots three\">\n" +
                   html + "</div>\n";
}

}  // namespace

std::string report_curves(const std::vector<RunHistory>& runs) {
  return plots(runs) + diagnostics_plots(runs);
}

}  // namespace polysketch
