// SPDX-License-Identifier: Apache-2.0
#include "reporting/sample_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "helpers/test_helpers.hpp"

namespace polysketch {
namespace {

namespace fs = std::filesystem;
using test::read_text;
using test::TemporaryFolder;
using testing::HasSubstr;

TEST(SampleFile, HoldsTheSamplesOfEachStepInOrder) {
  std::string file = add_samples("", 20, {{"", 1, "late"}, {"And", 2, "And\nso on"}});
  EXPECT_EQ(file,
            "=== step 20\n\n--- start of a document (seed 1)\nlate\n\n--- And (seed 2)\nAnd\nso "
            "on\n\n");
  file = add_samples(file, 3, {{"", 1, "early"}});
  const auto sections = split_samples(file);
  ASSERT_EQ(sections.size(), 2U);
  EXPECT_EQ(sections[0].step, 3);
  EXPECT_EQ(sections[0].text, "\n--- start of a document (seed 1)\nearly\n\n");
  EXPECT_EQ(sections[1].step, 20);
}

TEST(SampleFile, ReplacesASampleThatIsMadeAgain) {
  std::string file = add_samples("", 20, {{"a", 1, "one"}, {"a", 2, "two"}});
  file = add_samples(file, 20, {{"a", 2, "new"}, {"b", 1, "three"}});
  EXPECT_EQ(file,
            "=== step 20\n\n--- a (seed 1)\none\n\n--- a (seed 2)\nnew\n\n--- b (seed "
            "1)\nthree\n\n");
  EXPECT_EQ(add_samples(file, 20, {{"a", 1, "one"}}), file);
}

TEST(SampleFile, LeavesAloneWhatStandsBeforeTheFirstStep) {
  const std::string other = "--- In those days (seed 3)\nIn those days\n\n";
  const std::string file = add_samples(other, 20, {{"", 1, "text"}});
  EXPECT_THAT(file, testing::StartsWith(other + "=== step 20\n"));
  const auto sections = split_samples(file);
  ASSERT_EQ(sections.size(), 2U);
  EXPECT_FALSE(sections[0].step.has_value());
  EXPECT_EQ(split_samples("").size(), 0U);
}

TEST(SampleFile, ATitleIsOneLine) {
  EXPECT_THAT(add_samples("", 1, {{"a\nb\tc", 1, "a\nb\tc d"}}),
              HasSubstr("--- a b c (seed 1)\na\nb\tc d\n"));
}

TEST(SampleFile, OnlyAWholeLineNamesAStep) {
  for (const char* line : {"=== step", "=== step x", "=== step 5 ", " === step 5", "=== step -5",
                           "=== step 99999999999999999999"})
    EXPECT_FALSE(split_samples(line).front().step.has_value()) << line;
}

TEST(SampleFile, ForgetsTheStepsThatARunWillReachAgain) {
  std::string file = "before\n";
  for (const int64_t step : {10, 20, 30}) file = add_samples(file, step, {{"", 1, "x"}});
  const auto sections = split_samples(without_later_samples(file, 20));
  ASSERT_EQ(sections.size(), 3U);
  EXPECT_EQ(sections[2].step, 20);
}

TEST(SampleFile, IsKeptInTheRun) {
  const TemporaryFolder run;
  EXPECT_EQ(read_samples(run.path()), std::nullopt);
  keep_samples(run.path(), "text\n");
  EXPECT_EQ(read_samples(run.path()), "text\n");
  testing::internal::CaptureStderr();
  keep_samples(run / "gone", "text\n");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("the samples are not kept in the run"));
  EXPECT_FALSE(fs::exists(run / "gone"));
}

}  // namespace
}  // namespace polysketch
