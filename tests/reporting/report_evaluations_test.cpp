// SPDX-License-Identifier: Apache-2.0
#include "reporting/report_evaluations.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "helpers/test_helpers.hpp"
#include "reporting/example_run.hpp"
#include "reporting/html_report.hpp"

namespace polysketch {
namespace {

using test::TemporaryFolder;
using test::write_run;
using testing::HasSubstr;
using testing::Not;

EvaluationRecord perplexity(double time, int64_t step, double value, int64_t window = 64) {
  EvaluationRecord record;
  record.task = "perplexity";
  record.time = time;
  record.step = step;
  record.tokens = 1000 * step;
  record.checkpoint = fmt::format("step {}", step);
  record.measured = {{"corpus", "text"}, {"split", "test"},  {"bytes", 2048},
                     {"window", window}, {"stride", window}, {"precision", "fp32"},
                     {"tokenizer", "aa"}};
  record.figures = {
      {"perplexity", value}, {"nats_per_token", std::log(value)}, {"bits_per_byte", 1.5}};
  return record;
}

RunHistory run_with(const std::string& name, std::vector<EvaluationRecord> records) {
  RunHistory run;
  run.name = name;
  run.evaluations = std::move(records);
  return run;
}

/// Positions of the parts, which must all be there.
std::vector<size_t> places(const std::string& html, const std::vector<std::string>& parts) {
  std::vector<size_t> found;
  for (const std::string& part : parts) {
    EXPECT_THAT(html, HasSubstr(part));
    found.push_back(html.find(part));
  }
  return found;
}

TEST(ReportEvaluations, NewestOfEachKindFirstAndOfARepetitionTheNewest) {
  const std::string html = report_evaluations(
      {run_with("r", {perplexity(1.8e9, 10, 31), perplexity(1.8e9 + 60, 20, 21),
                      perplexity(1.8e9 + 120, 20, 22), perplexity(1.8e9 + 90, 20, 19, 128)})});
  const auto order = places(html, {"<td>22.0</td>", "<td>31.0</td>", "<td>19.0</td>"});
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << html;
  EXPECT_THAT(html, Not(HasSubstr("<td>21.0</td>"))) << "measured again since";
  EXPECT_THAT(html,
              HasSubstr("<td>test split of text (2.00 KiB), windows of 64, fp32</td><td>20</td>"));
  EXPECT_THAT(html, HasSubstr("<td>2027-01-15 08:02 UTC</td>"));
  EXPECT_THAT(html, HasSubstr("<th>bits/byte</th>"));
  EXPECT_EQ(report_evaluations({run_with("r", {})}), "");
}

/// The same step of another training is another checkpoint.
TEST(ReportEvaluations, TellsCheckpointsOfOneStepApart) {
  EvaluationRecord other = perplexity(1.8e9, 20, 25);
  other.checkpoint = "another";
  const std::string html =
      report_evaluations({run_with("r", {other, perplexity(1.8e9 + 1, 20, 22)})});
  places(html, {"<td>22.0</td>", "<td>25.0</td>"});
}

TEST(ReportEvaluations, ShowsTasksThatItDoesNotKnow) {
  EvaluationRecord record = perplexity(1.8e9, 20, 22);
  record.task = "multiple_choice";
  record.measured = {{"dataset", "piqa"}, {"shots", 5}, {"calibrated", true}};
  record.figures = {{"accuracy", 0.6125},
                    {"interval", {0.58, 0.64}},
                    {"questions", 1838},
                    {"mood", {{"good", 1}}},
                    {"missing", nullptr}};
  const std::string html = report_evaluations({run_with("r", {record, perplexity(1.8e9, 20, 22)})});
  EXPECT_THAT(html,
              HasSubstr("<th>multiple choice of</th><th>step</th><th>accuracy</th><th>interval</"
                        "th><th>questions</th>"));
  EXPECT_THAT(html,
              HasSubstr("<td>piqa, shots 5, calibrated true</td><td>20</td><td>61.25 "
                        "%</td><td>58.00 % to 64.00 %</td><td>1,838</td><td>{&quot;good&quot;:1}"
                        "</td><td></td>"));
  EXPECT_THAT(html, HasSubstr("<th>perplexity of</th>"));
}

TEST(ReportEvaluations, SetsRunsSideBySideWhereTheSameWasMeasured) {
  const std::string html =
      report_evaluations({run_with("a", {perplexity(1.8e9 + 5, 10, 33, 128),
                                         perplexity(1.8e9, 10, 31), perplexity(1.8e9 + 1, 20, 22)}),
                          run_with("b", {perplexity(1.8e9 + 2, 50, 18)}), run_with("c", {})});
  EXPECT_THAT(html, HasSubstr("<th>a</th><th>b</th><th>c</th>"));
  EXPECT_THAT(html,
              HasSubstr("<th scope=\"row\">perplexity</th><td>22.0</td><td>18.0</td><td></td>"));
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">step</th><td>20</td><td>50</td><td></td>"));
  const auto order = places(html, {"windows of 64", "measured of one run only", "windows of 128"});
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << "what several have comes first";
  EXPECT_THAT(html, HasSubstr("windows of 128, fp32</td><td>a</td><td>10</td><td>33.0</td>"));
  EXPECT_THAT(html, Not(HasSubstr("different tokenizers")));
}

TEST(ReportEvaluations, SaysWhatDifferentTokenizersLeaveToCompare) {
  EvaluationRecord other = perplexity(1.8e9, 20, 40);
  other.measured["tokenizer"] = "bb";
  std::string html =
      report_evaluations({run_with("a", {perplexity(1.8e9, 20, 22)}), run_with("b", {other})});
  EXPECT_THAT(html, HasSubstr("<td>22.0</td><td>40.0</td>"));
  EXPECT_THAT(html, HasSubstr("different tokenizers"));
  // The first tokens of one tokenizer are not the text that those of another are.
  EvaluationRecord part = perplexity(1.8e9, 20, 22);
  for (EvaluationRecord* record : {&part, &other}) {
    record->measured.erase("bytes");
    record->measured["first_tokens"] = 5000;
  }
  html = report_evaluations({run_with("a", {part}), run_with("b", {other})});
  EXPECT_THAT(html, HasSubstr("first 5,000 tokens"));
  EXPECT_THAT(html, Not(HasSubstr("<td>22.0</td><td>40.0</td>")));
}

TEST(ReportEvaluations, AnAttentionOtherThanInTrainingIsAnotherKind) {
  EvaluationRecord changed = perplexity(1.8e9, 20, 25);
  changed.measured["changed"] = {"attention.block: 64 -> 32"};
  const std::string html =
      report_evaluations({run_with("r", {perplexity(1.8e9, 20, 22), changed})});
  EXPECT_THAT(html, HasSubstr("fp32, with attention.block: 64 -&gt; 32"));
  places(html, {"<td>22.0</td>", "<td>25.0</td>"});
}

TEST(ReportEvaluations, StandInThePageAndInTheCurve) {
  const TemporaryFolder folder;
  write_run(folder / "run", 40, "first");
  EvaluationRecord record = perplexity(0, 40, 60);
  keep_evaluation(folder / "run", record);
  record.measured["corpus"] = "another text";
  keep_evaluation(folder / "run", record);
  RunHistory run = read_run(folder / "run");
  ASSERT_EQ(run.evaluations.size(), 2U);
  run.config["data.corpus"] = "text";
  const std::string html = html_report({run});
  EXPECT_LT(html.find("<h2>Evaluations</h2>"), html.find("<h2>Curves</h2>"));
  EXPECT_THAT(html, HasSubstr("</i>evaluation</span>"));
  EXPECT_THAT(html, HasSubstr("<title>test split of text (2.00 KiB), windows of 64, fp32: 4.094 at "
                              "40k</title>"));
  EXPECT_THAT(html, Not(HasSubstr("another text (2.00 KiB), windows of 64, fp32: ")))
      << "the curve is of one corpus";
}

TEST(ReportEvaluations, ThoseOfAnEarlierRunInTheFolderAreLeftOut) {
  const TemporaryFolder folder;
  const auto run = folder / "run";
  write_run(run, 40, "first");
  keep_evaluation(run, perplexity(0, 40, 60));
  std::string row = test::read_text(run / "evaluations.jsonl");
  const size_t begin = row.find("\"time\":") + 7;
  row.replace(begin, row.find(',', begin) - begin, "1500000000");
  test::write_text(run / "evaluations.jsonl", row + "nonsense\n");
  EXPECT_TRUE(read_run(run).evaluations.empty());
  EXPECT_EQ(read_run(run).damaged_evaluations, 1);
}

}  // namespace
}  // namespace polysketch
