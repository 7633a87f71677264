// SPDX-License-Identifier: Apache-2.0
#include "reporting/report_curves.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "reporting/number_text.hpp"
#include "reporting/report_evaluations.hpp"
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

/// What `evaluate perplexity` found, where it looked at the corpus that the run learns.
std::vector<PlotSeries> evaluation_series(const RunHistory& run, size_t index, size_t runs) {
  const auto corpus = run.config.find("data.corpus");
  std::vector<PlotSeries> found;
  for (const EvaluationRecord& record : run.evaluations) {
    const auto nats = record.figures.find("nats_per_token");
    const auto measured = record.measured.find("corpus");
    if (nats == record.figures.end() || !nats->is_number() || record.tokens <= 0) continue;
    if (corpus != run.config.end() && measured != record.measured.end() &&
        *measured != corpus->second)
      continue;
    found.push_back({label(run, runs, measured_in_words(record).c_str()),
                     runs == 1 ? 2 : static_cast<int>(index) % colors,
                     PlotStyle::diamonds,
                     {{static_cast<double>(record.tokens), nats->get<double>()}}});
  }
  return found;
}

void add_resumptions(Plot& plot, const std::vector<RunHistory>& runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const Resumption& resumption : runs[i].resumptions)
      plot.marks.push_back(
          {resumption.tokens, static_cast<int>(i) % colors,
           fmt::format("{}resumed after step {}", runs.size() == 1 ? "" : runs[i].name + " ",
                       group_digits(resumption.step))});
  }
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
    for (PlotSeries& series : evaluation_series(runs[i], i, runs.size()))
      plot.series.push_back(std::move(series));
  }
  add_resumptions(plot, runs);
  return plot;
}

/// Whether the whole run holds more than a twentieth of its range outside of the detail.
bool adds_something(const Plot& detail) {
  double low = INFINITY, high = -INFINITY;
  for (const PlotSeries& series : detail.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  }
  const double outside = std::max(0.0, high - detail.y_high.value_or(high)) +
                         std::max(0.0, detail.y_low.value_or(low) - low);
  return outside > 0.05 * (high - low);
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
  add_resumptions(plot, runs);
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

std::string key(int color, const char* mark, const std::string& text) {
  return fmt::format("<span class=\"key c{}\"><i class=\"{}\"></i>{}</span>", color, mark,
                     escape_html(text));
}

/// What the lines and marks of the large plots are.
std::string keys_of(const Plot& plot, const std::vector<RunHistory>& runs) {
  const auto any = [&](const auto& holds) {
    return std::any_of(plot.series.begin(), plot.series.end(),
                       [&](const PlotSeries& series) { return holds(series.style); });
  };
  const bool evaluated = any([](PlotStyle style) { return style == PlotStyle::diamonds; });
  std::string keys;
  if (runs.size() == 1) {
    if (!runs[0].steps.empty()) keys += key(0, "", "training");
    if (!runs[0].validations.empty()) keys += key(1, "dot", "validation");
    if (evaluated) keys += key(2, "diamond", "evaluation");
    if (!plot.marks.empty()) keys += key(0, "mark", "resumed");
    return keys;
  }
  for (size_t i = 0; i < runs.size(); ++i)
    keys += key(static_cast<int>(i) % colors, "", runs[i].name);
  std::string others;
  const auto add = [&](bool shown, const char* text) {
    if (shown) others += (others.empty() ? "" : ", ") + std::string(text);
  };
  add(any([](PlotStyle style) { return style == PlotStyle::markers; }), "dots: validation");
  add(evaluated, "diamonds: evaluation");
  add(!plot.marks.empty(), "upright lines: resumed");
  if (!others.empty()) keys += "<span class=\"key\">" + others + "</span>";
  return keys;
}

/// Small plots go without a key: the large ones above them have it. A large plot is drawn a second
/// time for narrow screens, where its text would shrink with it.
std::string figure(const Plot& plot, const std::vector<RunHistory>& runs) {
  std::string picture = to_svg(plot);
  if (picture.empty()) return {};
  if (!plot.small) {
    Plot narrow = plot;
    narrow.small = true;
    picture = fmt::format("<div class=\"wide\">\n{}</div>\n<div class=\"narrow\">\n{}</div>\n",
                          picture, to_svg(narrow));
  }
  return fmt::format("<figure><figcaption><b>{}</b>{}</figcaption>\n{}</figure>\n",
                     escape_html(plot.title), plot.small ? "" : keys_of(plot, runs), picture);
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
  return "<h2>Curves</h2>\n<div class=\"plots\">\n" + figure(detail, runs) +
         (adds_something(detail) ? figure(overview, runs) : "") +
         "</div>\n<div class=\"plots three\">\n" +
         figure(step_plot(runs, "Learning rate", "learning rate", &StepRow::learning_rate, false),
                runs) +
         figure(norm, runs) + figure(speed, runs) + "</div>\n";
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
    html += figure(plot, runs);
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
