// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "reporting/example_run.hpp"
#include "reporting/html_report.hpp"
#include "reporting/metric_sink.hpp"
#include "reporting/plot_axis.hpp"
#include "reporting/run_figures.hpp"
#include "reporting/run_history.hpp"
#include "reporting/svg_plot.hpp"
#include "support/error.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::append_rows;
using test::TemporaryFolder;
using test::write_run;
using test::write_text;
using testing::HasSubstr;
using testing::Not;

/// What a run adds that looked at its attention weights.
void add_diagnostics(const fs::path& folder, int64_t steps) {
  const auto sink = make_jsonl_sink((folder / "metrics.jsonl").string(), steps);
  for (int64_t step = 10; step <= steps; step += 10)
    sink->record({"diagnostics",
                  step,
                  step * 1000,
                  {{"sketch_error", 1.0 / static_cast<double>(step)}, {"effective_rank", 5.0}}});
}

int occurrences(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

std::map<std::string, std::string> figures_of(const RunHistory& run) {
  std::map<std::string, std::string> figures;
  for (const auto& [name, value] : run_figures(run)) figures[name] = value;
  return figures;
}

TEST(RunHistory, ReadsWhatTheSinkWrote) {
  const TemporaryFolder folder;
  write_run(folder / "run", 40, "first");
  const RunHistory run = read_run(folder / "run");
  EXPECT_EQ(run.name, "first");
  ASSERT_EQ(run.steps.size(), 40U);
  EXPECT_EQ(run.validations.size(), 4U);
  EXPECT_EQ(run.steps[3].loss, 6.5);
  EXPECT_TRUE(std::isnan(run.steps[6].loss));
  EXPECT_TRUE(std::isnan(run.steps[0].mfu));

  const auto figures = figures_of(run);
  EXPECT_EQ(figures.at("validation loss, best"),
            fmt::format("{:.4f} at step 40", 3.1 + 7 / std::sqrt(40)));
  EXPECT_EQ(figures.at("steps without a finite loss"), "1");
  double sum = 0;
  for (int step = 31; step <= 40; ++step) sum += 3 + 7 / std::sqrt(step);
  EXPECT_NEAR(final_training_loss(run), sum / 10, 1e-12);
}

TEST(RunHistory, CountsDamagedRowsAndRefusesAnEmptyRun) {
  const TemporaryFolder folder;
  write_text(folder / "metrics.jsonl",
             "{\"event\":\"step\",\"step\":1,\"tokens\":5,\"loss\":2}\nnonsense\n{\"event\":"
             "\"step\",\"st");
  EXPECT_EQ(read_run(folder.path()).damaged_rows, 2);
  const auto code_of = [&](const fs::path& path) {
    try {
      read_run(path);
    } catch (const UserError& error) {
      return error.code();
    }
    return ExitCode::done;
  };
  EXPECT_EQ(code_of(folder / "absent"), ExitCode::missing_input);
  write_text(folder / "metrics.jsonl", "{\"event\":\"start\",\"step\":0,\"tokens\":0}\n");
  EXPECT_EQ(code_of(folder.path()), ExitCode::bad_data);
}

TEST(RunHistory, FlattensTheConfigAsItIsWritten) {
  const auto flat = flatten_config(
      "# a comment\nrun:\n  name: x\n  directory: \"runs/a: b\"\ndata:\n  tokenizer:\n    path: "
      "t.model  # from base\n  context: "
      "8192\ntop: 1\n");
  const std::map<std::string, std::string> want{{"run.name", "x"},
                                                {"run.directory", "runs/a: b"},
                                                {"data.tokenizer.path", "t.model"},
                                                {"data.context", "8192"},
                                                {"top", "1"}};
  EXPECT_EQ(flat, want);
}

TEST(HtmlReport, StandsAlone) {
  const TemporaryFolder folder;
  write_run(folder / "run", 40, "first");
  write_text(folder / "run" / "samples.txt", "<script>alert(1)</script> & \x01 more");
  const std::string html = html_report({read_run(folder / "run")});
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt; &amp;  more"));
  EXPECT_THAT(html, HasSubstr("a &lt;fast&gt; one"));
  for (const char* remote : {"src=", "href=", "@import", "<link", "<img", "<iframe"})
    EXPECT_EQ(html.find(remote), std::string::npos) << remote;
  for (size_t at = html.find("://"); at != std::string::npos; at = html.find("://", at + 1)) {
    EXPECT_EQ(html.substr(at - 4, 30), "http://www.w3.org/2000/svg\" vi")
        << "only the name of SVG looks like an address";
  }
  for (const char* title : {"Loss", "Loss, whole run", "Learning rate", "Gradient norm", "Speed"})
    EXPECT_THAT(html, HasSubstr(fmt::format("<b>{}</b>", title)));
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_EQ(html.find("inf\""), std::string::npos);
}

TEST(HtmlReport, DrawsWhatARunSawOfItsWeights) {
  const TemporaryFolder folder;
  write_run(folder / "plain", 40, "first");
  write_run(folder / "watched", 40, "second");
  add_diagnostics(folder / "watched", 40);
  const RunHistory watched = read_run(folder / "watched");
  ASSERT_EQ(watched.diagnostics.size(), 4U);
  EXPECT_EQ(watched.diagnostics[1].step, 20);
  EXPECT_EQ(watched.diagnostics[1].sketch_error, 0.05);
  EXPECT_TRUE(std::isnan(watched.diagnostics[1].largest_score));
  const std::string html = html_report({read_run(folder / "plain"), watched});
  for (const char* title : {"Error of the sketch", "Effective rank"})
    EXPECT_THAT(html, HasSubstr(fmt::format("<b>{}</b>", title)));
  EXPECT_THAT(html, Not(HasSubstr("Largest score"))) << "no run has it";
  EXPECT_THAT(html_report({read_run(folder / "plain")}), Not(HasSubstr("Attention weights")));
}

TEST(HtmlReport, SetsRunsSideBySideAndMarksWhatDiffers) {
  const TemporaryFolder folder;
  write_run(folder / "a", 40, "first");
  write_run(folder / "b", 50, "second");
  const std::string html = html_report({read_run(folder / "a"), read_run(folder / "b")});
  EXPECT_THAT(html, HasSubstr("<th>first</th><th>second</th>"));
  EXPECT_THAT(html, HasSubstr("<tr class=\"differs\"><th "
                              "scope=\"row\">training.steps</th><td>40</td><td>50</td></tr>"));
  EXPECT_THAT(
      html,
      HasSubstr("<tr><th scope=\"row\">schedule.peak</th><td>0.0007</td><td>0.0007</td></tr>"));
}

TEST(RunHistory, TellsRunsOfOneNameApart) {
  std::vector<RunHistory> runs(3);
  runs[0].name = runs[2].name = "same";
  runs[0].folder = "runs/a";
  runs[1].name = "other";
  runs[2].folder = "runs/b";
  tell_names_apart(runs);
  EXPECT_EQ(runs[0].name, "same (runs/a)");
  EXPECT_EQ(runs[1].name, "other");
  EXPECT_EQ(runs[2].name, "same (runs/b)");
}

/// Losses 5, 4.9, 4.8 … lie within the range that the first picture shows.
TEST(HtmlReport, ShowsNoPictureTwice) {
  const TemporaryFolder folder;
  std::string rows;
  for (int step = 1; step <= 10; ++step)
    rows += fmt::format("{{\"event\":\"step\",\"step\":{},\"tokens\":{},\"loss\":{}}}\n", step,
                        step * 100, 5.1 - 0.1 * step);
  write_text(folder / "metrics.jsonl", rows);
  const std::string html = html_report({read_run(folder.path())});
  EXPECT_THAT(html, HasSubstr("<b>Loss</b>"));
  EXPECT_THAT(html, Not(HasSubstr("Loss, whole run")));
}

TEST(HtmlReport, MarksWhereARunWentOn) {
  const TemporaryFolder folder;
  write_run(folder / "run", 20, "first");
  append_rows(
      folder / "run",
      "{\"event\":\"start\",\"step\":20,\"tokens\":20000}\n"
      "{\"event\":\"step\",\"step\":21,\"tokens\":21000,\"loss\":4.5,\"learning_rate\":1e-4,"
      "\"gradient_norm\":1,\"tokens_per_second\":5}\n");
  const RunHistory run = read_run(folder / "run");
  ASSERT_EQ(run.resumptions.size(), 1U);
  EXPECT_EQ(run.resumptions[0].tokens, 20000);
  const std::string html = html_report({run});
  EXPECT_THAT(html, HasSubstr("</i>resumed</span>"));
  // the two large plots, each drawn twice, and the three small ones
  EXPECT_EQ(occurrences(html, "<title>resumed after step 20</title>"), 7);
  write_run(folder / "plain", 20, "second");
  EXPECT_THAT(html_report({read_run(folder / "plain")}), Not(HasSubstr("resumed")));
  EXPECT_THAT(html_report({run, read_run(folder / "plain")}),
              HasSubstr("<title>first resumed after step 20</title>"));
}

/// On a phone 380 pixels wide the pictures are at least 336 pixels wide: what is shown there must
/// not be drawn in so many units that its text shrinks below 11 pixels.
TEST(HtmlReport, TextOfPicturesIsReadableOnAPhone) {
  const TemporaryFolder folder;
  write_run(folder / "run", 40, "first");
  const std::string html = html_report({read_run(folder / "run")});
  EXPECT_THAT(html, HasSubstr("svg text{font:12.5px"));
  EXPECT_THAT(html,
              HasSubstr("@media (max-width:560px){body{padding:1rem .8rem 2rem}figure{padding:"
                        ".6rem .5rem .3rem}.wide{display:none}"));
  int shown = 0;
  for (size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) {
    const bool wide = html.rfind("class=\"wide\"", at) != std::string::npos &&
                      html.substr(html.rfind("<div", at), 20).find("wide") != std::string::npos;
    const size_t box = html.find("viewBox=\"0 0 ", at) + 13;
    const double width = std::stod(html.substr(box));
    if (wide) continue;
    EXPECT_GE(12.5 * 336 / width, 11.0);
    ++shown;
  }
  EXPECT_EQ(shown, 5);
}

TEST(HtmlReport, ShowsTheLastSamplesAndFoldsTheOthers) {
  const TemporaryFolder folder;
  write_run(folder / "run", 40, "first");
  write_text(folder / "run" / "samples.txt",
             "=== step 20\n\n--- a (seed 1)\nearly words\n\n=== step 1040\n\n--- a (seed "
             "1)\nlate words\n\n");
  const std::string html = html_report({read_run(folder / "run")});
  EXPECT_THAT(html, HasSubstr("<h3>step 1,040</h3>\n<pre>--- a (seed 1)\nlate words</pre>"));
  EXPECT_THAT(html, HasSubstr("<details><summary>step 20</summary><pre>--- a (seed 1)\nearly "
                              "words</pre>"));
}

TEST(HtmlReport, ManagesWithOneRowOnly) {
  const TemporaryFolder folder;
  write_text(folder / "metrics.jsonl", "{\"event\":\"step\",\"step\":1,\"tokens\":5,\"loss\":2}\n");
  EXPECT_THAT(html_report({read_run(folder.path())}), HasSubstr("<b>Loss</b>"));
}

/// The path of the first line in a picture.
std::string line_of(const std::string& svg) {
  const size_t line = svg.find("class=\"line");
  const size_t begin = svg.find(" d=\"", line) + 4;
  return line == std::string::npos ? "" : svg.substr(begin, svg.find('"', begin) - begin);
}

/// Pixels of its points.
std::vector<std::pair<double, double>> pixels(const std::string& svg) {
  std::string path = line_of(svg);
  std::replace_if(
      path.begin(), path.end(), [](char c) { return c == 'M' || c == 'L'; }, ' ');
  std::istringstream numbers(path);
  std::vector<std::pair<double, double>> points;
  for (double x = 0, y = 0; numbers >> x >> y;) points.emplace_back(x, y);
  return points;
}

TEST(SvgPlot, PutsPointsWhereTheirValuesAre) {
  Plot plot;
  plot.title = "t";
  plot.series = {{"s", 0, PlotStyle::line, {{0, 0}, {50, 5}, {100, 10}}}};
  const auto points = pixels(to_svg(plot));
  ASSERT_EQ(points.size(), 3U);
  EXPECT_NEAR(points[1].first, (points[0].first + points[2].first) / 2, 0.1);
  EXPECT_NEAR(points[1].second, (points[0].second + points[2].second) / 2, 0.1);
  EXPECT_LT(points[2].second, points[0].second) << "up is more";

  plot.logarithmic_x = plot.logarithmic_y = true;
  plot.series = {{"s", 0, PlotStyle::line, {{1, 1}, {10, 10}, {100, 100}}}};
  const auto logarithmic = pixels(to_svg(plot));
  ASSERT_EQ(logarithmic.size(), 3U);
  EXPECT_NEAR(logarithmic[1].first, (logarithmic[0].first + logarithmic[2].first) / 2, 0.1);
  EXPECT_NEAR(logarithmic[1].second, (logarithmic[0].second + logarithmic[2].second) / 2, 0.1);
}

TEST(SvgPlot, KeepsEverySpikeOfALongRunInASmallPicture) {
  Plot plot;
  PlotSeries series;
  for (int i = 0; i < 200'000; ++i) series.points.emplace_back(i, i == 123'457 ? 100 : i % 2);
  plot.series = {series};
  const std::string svg = to_svg(plot);
  EXPECT_LT(svg.size(), 100'000U);
  double highest = INFINITY;
  for (const auto& [x, y] : pixels(svg)) highest = std::min(highest, y);
  plot.series[0].points = {{0, 0}, {1, 100}};
  EXPECT_NEAR(highest, pixels(to_svg(plot))[1].second, 0.2);
}

TEST(SvgPlot, InterruptsTheLineAtMissingValues) {
  Plot plot;
  plot.series = {{"s", 0, PlotStyle::line, {{0, 1}, {1, 2}, {2, NAN}, {3, 3}, {4, 4}}}};
  const std::string svg = to_svg(plot);
  EXPECT_EQ(pixels(svg).size(), 4U);
  const std::string path = line_of(svg);
  EXPECT_EQ(std::count(path.begin(), path.end(), 'M'), 2);
  plot.series = {{"s", 0, PlotStyle::line, {{0, NAN}}}};
  EXPECT_EQ(to_svg(plot), "");
}

TEST(PlotAxis, HasRoundTicksWithinItsRange) {
  for (const bool logarithmic : {false, true}) {
    for (double low : {1e-6, 0.3, 1.0, 2.9, 1000.0}) {
      for (double factor : {1.0, 1.01, 1.5, 3.0, 10.0, 1e3, 1e9}) {
        const PlotAxis axis(low, low * factor, logarithmic, 0, 100);
        const auto ticks = axis.ticks(6);
        ASSERT_GE(ticks.size(), 2U)
            << low << " times " << factor << (logarithmic ? " logarithmic" : " linear");
        ASSERT_LE(ticks.size(), 13U) << low << " times " << factor;
        for (size_t i = 0; i < ticks.size(); ++i) {
          EXPECT_GE(axis.pixel(ticks[i].value), -0.01);
          EXPECT_LE(axis.pixel(ticks[i].value), 100.01);
          if (i == 0) continue;
          EXPECT_NE(ticks[i].text, ticks[i - 1].text) << low << " times " << factor;
        }
      }
    }
  }
}

TEST(PlotAxis, WritesNumbersShortly) {
  const std::vector<std::pair<double, std::string>> cases{
      {0, "0"},        {7e-4, "7e-4"},   {1.5e-5, "1.5e-5"}, {0.05, "0.05"},
      {3.25, "3.25"},  {999.0, "999"},   {1000.0, "1k"},     {1.5e6, "1.5M"},
      {125e9, "125B"}, {-2000.0, "-2k"}, {0.3, "0.3"},       {2e15, "2000T"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(axis_text(value), text);
}

}  // namespace
}  // namespace polysketch
