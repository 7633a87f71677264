// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace polysketch {

enum class PlotStyle {
  faint,
  line,
  markers,   ///< points, and a dashed line to lead the eye
  marked,    ///< a line with its points
  diamonds,  ///< single points, without a line
};

struct PlotSeries {
  std::string label;  ///< shown when the pointer rests on it
  int color = 0;      ///< class c<color> of the style sheet, from 0
  PlotStyle style = PlotStyle::line;
  /// by x; a point that is not finite interrupts the line
  std::vector<std::pair<double, double>> points;
};

/// A vertical line at something that happened there.
struct PlotMark {
  double x = 0;
  int color = 0;
  std::string label;  ///< shown when the pointer rests on it
};

struct Plot {
  std::string title;  ///< also what a screen reader says
  std::string x_label, y_label;
  bool logarithmic_x = false, logarithmic_y = false;
  /// where the axis shall say what; empty: at round numbers
  std::vector<std::pair<double, std::string>> x_ticks;
  bool small = false;  ///< for a third of the page's width, or a phone's, instead of half
  /// the range, where the data's own would hide what matters; lines are clipped to it
  std::optional<double> y_low, y_high;
  std::vector<PlotSeries> series;
  std::vector<PlotMark> marks;  ///< those outside the range of the series are left out
};

/// Units of a picture that is not small; of one that is: 340 x 250. The text is 12.5 units high.
inline constexpr double plot_width = 540, plot_height = 300;

/// A picture in the page's own colours (classes axis, grid, c0 … c7 and so on of the style sheet),
/// as wide as its column. Lines have at most four points for
/// half a pixel column, whatever the number of steps. Empty if nothing can be drawn.
std::string to_svg(const Plot& plot);

std::string escape_html(const std::string& text);

}  // namespace polysketch
