// SPDX-License-Identifier: Apache-2.0
#include "reporting/svg_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace polysketch {
namespace {

using testing::HasSubstr;
using testing::Not;

/// What is wrong with the nesting of elements; empty if nothing is. Enough for a text without
/// comments and CDATA.
std::string malformed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return "a tag without an end";
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "an open quote in " + tag;
    if (tag.find('<') != std::string::npos) return "a tag within " + tag;
    if (tag.ends_with('/')) continue;
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return "nothing is closed by " + tag;
      open.pop_back();
    } else {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    const size_t text = xml.find('&', end);
    if (text != std::string::npos && xml.find(';', text) > text + 6) return "a bare ampersand";
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

Plot example() {
  Plot plot;
  plot.title = "a < b & c";
  plot.x_label = "T";
  plot.y_label = "time";
  plot.logarithmic_x = plot.logarithmic_y = true;
  plot.x_ticks = {{512, "512"}, {1024, "1Ki"}, {1 << 20, "outside"}};
  plot.series = {{"first \"one\"", 0, PlotStyle::marked, {{512, 1}, {1024, 4}}},
                 {"second", 1, PlotStyle::markers, {{512, 2}, {1024, 2}}}};
  return plot;
}

TEST(SvgFile, StandsAlone) {
  const std::string svg = svg_file(example(), "on a <machine>\nof yesterday");
  EXPECT_EQ(malformed(svg), "");
  EXPECT_THAT(svg, Not(HasSubstr("var("))) << "colours must not depend on a page";
  EXPECT_THAT(svg, HasSubstr("path.c0,line.c0{stroke:#0b63b5}"));
  EXPECT_THAT(svg, HasSubstr("fill=\"#fff\""));
  for (const char* part :
       {">a &lt; b &amp; c</text>", ">first &quot;one&quot;</text>", ">second</text>",
        ">on a &lt;machine&gt;</text>", ">of yesterday</text>"})
    EXPECT_THAT(svg, HasSubstr(part)) << part;
}

TEST(SvgFile, TicksAreWhereTheyWereAskedFor) {
  const std::string svg = svg_file(example(), "");
  EXPECT_THAT(svg, HasSubstr(">512</text>"));
  EXPECT_THAT(svg, HasSubstr(">1Ki</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("outside")));
}

TEST(SvgFile, OfNothingIsEmpty) {
  Plot plot = example();
  for (PlotSeries& series : plot.series) series.points.clear();
  EXPECT_EQ(svg_file(plot, "note"), "");
}

}  // namespace
}  // namespace polysketch
