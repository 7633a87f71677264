// SPDX-License-Identifier: Apache-2.0
#include "reporting/svg_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <set>

#include "reporting/plot_axis.hpp"

namespace polysketch {
namespace {

/// Where the parts of a picture lie.
struct Frame {
  double width, height, left, right, top, bottom;
};

/// `widest`: letters of the longest text beside the upright axis.
Frame frame_of(const Plot& plot, size_t widest) {
  // the label's line, then the ticks' texts of 7.4 units a letter
  const double left = 34 + 7.4 * static_cast<double>(std::max<size_t>(widest, 3));
  const double width = plot.small ? 340 : plot_width, height = plot.small ? 250 : plot_height;
  return {width, height, left, width - 12, 14, height - 48};
}

/// Far outside the picture is as good as further: huge numbers upset renderers.
double bounded(double pixel) { return std::clamp(pixel, -1000.0, 2000.0); }

struct Range {
  double low = std::numeric_limits<double>::infinity(),
         high = -std::numeric_limits<double>::infinity();
  void add(double value, bool positive_only) {
    if (!std::isfinite(value) || (positive_only && value <= 0)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

bool drawable(const PlotAxis& x, const PlotAxis& y, const std::pair<double, double>& point) {
  return std::isfinite(point.first) && std::isfinite(point.second) &&
         (!x.logarithmic() || point.first > 0) && (!y.logarithmic() || point.second > 0);
}

/// A path of the pixels: of all points in one column of pixels the first, lowest, highest and last,
/// so that no spike is lost.
class PathWriter {
 public:
  void add(double x, double y) {
    const double column = std::floor(x * 2);
    if (column != column_) flush();
    column_ = column;
    pending_.emplace_back(x, y);
  }
  void interrupt() {
    flush();
    open_ = false;
  }
  std::string finish() {
    interrupt();
    return std::move(path_);
  }

 private:
  void flush() {
    if (pending_.empty()) return;
    const auto by_y = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [low, high] = std::minmax_element(pending_.begin(), pending_.end(), by_y);
    auto first = std::min(low, high), second = std::max(low, high);
    put(pending_.front());
    if (first != pending_.begin()) put(*first);
    if (second != first) put(*second);
    if (pending_.size() > 1 && second != pending_.end() - 1) put(pending_.back());
    pending_.clear();
  }
  void put(const std::pair<double, double>& point) {
    path_ += fmt::format("{}{:.1f} {:.1f}", open_ ? "L" : "M", point.first, point.second);
    open_ = true;
  }
  std::string path_;
  std::vector<std::pair<double, double>> pending_;
  double column_ = std::numeric_limits<double>::quiet_NaN();
  bool open_ = false;
};

std::string draw_line(const PlotSeries& series, const PlotAxis& x, const PlotAxis& y) {
  PathWriter path;
  for (const auto& point : series.points) {
    if (drawable(x, y, point)) {
      path.add(x.pixel(point.first), bounded(y.pixel(point.second)));
    } else {
      path.interrupt();
    }
  }
  const char* style = series.style == PlotStyle::faint ? "faint" : "line";
  return fmt::format("<path class=\"{} c{}\" d=\"{}\"><title>{}</title></path>\n", style,
                     series.color, path.finish(), escape_html(series.label));
}

std::string draw_markers(const PlotSeries& series, const PlotAxis& x, const PlotAxis& y) {
  std::string drawn;
  PathWriter path;
  for (const auto& point : series.points) {
    if (!drawable(x, y, point)) continue;
    path.add(x.pixel(point.first), bounded(y.pixel(point.second)));
    if (!y.covers(point.second)) continue;
    drawn += fmt::format(
        "<circle class=\"marker c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\"><title>{}: {:.4g} at "
        "{}</title></circle>\n",
        series.color, x.pixel(point.first), y.pixel(point.second), escape_html(series.label),
        point.second, axis_text(point.first));
  }
  const char* style = series.style == PlotStyle::markers ? "dashed" : "line";
  return fmt::format("<path class=\"{} c{}\" d=\"{}\"/>\n", style, series.color, path.finish()) +
         drawn;
}

std::string draw_diamonds(const PlotSeries& series, const PlotAxis& x, const PlotAxis& y) {
  std::string drawn;
  for (const auto& point : series.points) {
    if (!drawable(x, y, point) || !y.covers(point.second)) continue;
    drawn += fmt::format(
        "<path class=\"marker diamond c{}\" d=\"M{:.1f} {:.1f}l5 5l-5 5l-5 -5z\"><title>{}: {:.4g} "
        "at "
        "{}</title></path>\n",
        series.color, x.pixel(point.first), y.pixel(point.second) - 5, escape_html(series.label),
        point.second, axis_text(point.first));
  }
  return drawn;
}

std::string draw_series(const PlotSeries& series, const PlotAxis& x, const PlotAxis& y) {
  switch (series.style) {
    case PlotStyle::markers:
    case PlotStyle::marked:
      return draw_markers(series, x, y);
    case PlotStyle::diamonds:
      return draw_diamonds(series, x, y);
    default:
      return draw_line(series, x, y);
  }
}

/// One line for each column of pixels, however often something happened there.
std::string draw_marks(const Plot& plot, const Frame& frame, const PlotAxis& x) {
  std::string drawn;
  std::set<std::pair<int, double>> taken;
  for (const PlotMark& mark : plot.marks) {
    if (!x.covers(mark.x)) continue;
    const double at = std::round(x.pixel(mark.x));
    if (!taken.emplace(mark.color, at).second) continue;
    drawn += fmt::format(
        "<line class=\"mark c{}\" x1=\"{}\" x2=\"{}\" y1=\"{}\" "
        "y2=\"{}\"><title>{}</title></line>\n",
        mark.color, at, at, frame.top, frame.bottom, escape_html(mark.label));
  }
  return drawn;
}

std::string draw_axes(const Plot& plot, const Frame& frame, const PlotAxis& x, const PlotAxis& y) {
  std::string drawn;
  for (const auto& tick : y.ticks(plot.small ? 5 : 6)) {
    const double at = y.pixel(tick.value);
    drawn += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                         frame.left, frame.right, at, at);
    drawn +=
        fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
                    frame.left - 7, at + 4, tick.text);
  }
  std::vector<PlotAxis::Tick> across;
  for (const auto& [value, text] : plot.x_ticks) {
    if (x.covers(value)) across.push_back({value, escape_html(text)});
  }
  if (plot.x_ticks.empty()) across = x.ticks(plot.small ? 4 : 6);
  for (const auto& tick : across) {
    const double at = x.pixel(tick.value);
    drawn += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>",
                         at, at, frame.bottom, frame.bottom + 5);
    drawn +=
        fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                    at, frame.bottom + 19, tick.text);
  }
  drawn += fmt::format("<path class=\"axis\" d=\"M{0} {1}V{2}H{3}\"/>", frame.left, frame.top,
                       frame.bottom, frame.right);
  drawn += fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                       (frame.left + frame.right) / 2, frame.height - 10,
                       escape_html(plot.x_label + (x.logarithmic() ? " (logarithmic)" : "")));
  drawn += fmt::format(
      "<text class=\"label\" transform=\"translate(13 {}) rotate(-90)\" "
      "text-anchor=\"middle\">{}</text>\n",
      (frame.top + frame.bottom) / 2, escape_html(plot.y_label));
  return drawn;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        // Control characters have no place in a page, whatever a sample brings along.
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') escaped.push_back(c);
    }
  }
  return escaped;
}

std::string to_svg(const Plot& plot) {
  Range across, up;
  for (const PlotSeries& series : plot.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y) || (plot.logarithmic_y && y <= 0)) continue;
      across.add(x, plot.logarithmic_x);
      up.add(y, plot.logarithmic_y);
    }
  }
  if (across.empty() || up.empty()) return {};
  const double y_low = plot.y_low.value_or(up.low), y_high = plot.y_high.value_or(up.high);
  // A little room above and below the data, so that lines do not run along the frame.
  const double room = plot.logarithmic_y ? 0 : 0.04 * (y_high - y_low);
  const double factor = plot.logarithmic_y ? std::pow(y_high / y_low, 0.04) : 1;
  const double padded_low =
      !plot.logarithmic_y && y_low >= 0 && y_low - room < 0 ? 0 : (y_low - room) / factor;
  // The frame's place depends on the texts of the ticks, which do not depend on it.
  const PlotAxis upright(padded_low, (y_high + room) * factor, plot.logarithmic_y, 1, 0);
  size_t widest = 0;
  for (const auto& tick : upright.ticks(plot.small ? 5 : 6))
    widest = std::max(widest, tick.text.size());
  const Frame frame = frame_of(plot, widest);
  // A linear axis that nearly reaches zero begins there.
  if (!plot.logarithmic_x && across.low > 0 && across.low < 0.1 * across.high) across.low = 0;
  const PlotAxis x(across.low, across.high, plot.logarithmic_x, frame.left, frame.right);
  const PlotAxis y(padded_low, (y_high + room) * factor, plot.logarithmic_y, frame.bottom,
                   frame.top);

  static std::atomic<int> count{0};
  const int id = count++;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n",
      frame.width, frame.height, escape_html(plot.title));
  svg += fmt::format(
      "<clipPath id=\"clip{}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
      id, frame.left, frame.top - 4, frame.right - frame.left + 4, frame.bottom - frame.top + 4);
  svg += draw_axes(plot, frame, x, y);
  svg += fmt::format("<g clip-path=\"url(#clip{})\">\n", id);
  svg += draw_marks(plot, frame, x);
  for (const PlotSeries& series : plot.series) svg += draw_series(series, x, y);
  return svg + "</g>\n</svg>\n";
}

}  // namespace polysketch
