// SPDX-License-Identifier: Apache-2.0
#include "reporting/svg_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>
#include <string_view>
#include <vector>

#include "reporting/report_style.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

/// The report's colour of this name on light ground, which its style sheet defines first.
std::string_view light_color(std::string_view variable) {
  const std::string_view style = report_style;
  const size_t at = style.find(fmt::format("{}:", variable));
  require(at != std::string_view::npos, "a colour that the report's style sheet does not define");
  const size_t start = at + variable.size() + 1;
  return style.substr(start, style.find_first_of(";}", start) - start);
}

std::string plain_style() {
  constexpr std::string_view opening = "var(";
  const std::string_view rules = plot_style;
  std::string plain;
  size_t at = 0;
  for (size_t found = 0; (found = rules.find(opening, at)) != std::string_view::npos;) {
    const size_t name = found + opening.size(), end = rules.find(')', name);
    plain += rules.substr(at, found - at);
    plain += light_color(rules.substr(name, end - name));
    at = end + 1;
  }
  return plain + std::string(rules.substr(at));
}

}  // namespace

std::string svg_file(const Plot& plot, const std::string& note) {
  const std::string picture = to_svg(plot);
  if (picture.empty()) return {};
  size_t longest = 0;
  for (const PlotSeries& series : plot.series) longest = std::max(longest, series.label.size());
  constexpr double top = 40, row = 19, letter = 7.2, left = 58;
  std::vector<std::string> notes;
  size_t longest_note = 0;
  std::istringstream stream(note);
  for (std::string line; std::getline(stream, line);) {
    longest_note = std::max(longest_note, line.size());
    notes.push_back(line);
  }
  const double width = std::max(plot_width + 50 + letter * static_cast<double>(longest),
                                left + 10 + letter * static_cast<double>(longest_note));
  const double below =
      top + std::max(plot_height, row * static_cast<double>(plot.series.size() + 1)) + row;
  const double height = below + row * static_cast<double>(notes.size());
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\">\n",
      width, height);
  svg += fmt::format("<style>{}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n",
                     plain_style(), light_color("--paper"));
  svg += fmt::format("<text x=\"{}\" y=\"26\" style=\"font-size:16px;font-weight:600\">{}</text>\n",
                     left, escape_html(plot.title));
  svg += fmt::format("<svg y=\"{}\" width=\"{}\" height=\"{}\">\n{}</svg>\n", top, plot_width,
                     plot_height, picture);
  double y = top + 24;
  for (const PlotSeries& series : plot.series) {
    const char* style = series.style == PlotStyle::markers ? "dashed" : "line";
    svg += fmt::format(
        "<path class=\"{} c{}\" d=\"M{} {}h24\"/><text x=\"{}\" y=\"{}\">{}</text>\n", style,
        series.color, plot_width + 6, y - 4, plot_width + 36, y, escape_html(series.label));
    y += row;
  }
  for (size_t i = 0; i < notes.size(); ++i)
    svg += fmt::format("<text x=\"{}\" y=\"{}\">{}</text>\n", left,
                       below + row * static_cast<double>(i), escape_html(notes[i]));
  return svg + "</svg>\n";
}

}  // namespace polysketch
