// SPDX-License-Identifier: Apache-2.0
#include "support/checked_numbers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "support/error.hpp"

namespace polysketch {
namespace {

using testing::ElementsAre;

std::string refusal_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

TEST(CheckedNumbers, TakeTheUnitsOfTheConfiguration) {
  EXPECT_EQ(checked_count("--n", "10k", 1, 10'000), 10'000);
  EXPECT_EQ(checked_count("--n", "1Mi", 0), 1 << 20);
  EXPECT_THAT(checked_counts("--n", "1k,2,1Ki", 1), ElementsAre(1000, 2, 1024));
  EXPECT_DOUBLE_EQ(checked_real("--x", "2.5e-1", 0, 1), 0.25);
  EXPECT_DOUBLE_EQ(checked_speed("--x", "5987.25"), 5987.25);
  EXPECT_DOUBLE_EQ(checked_speed("--x", "2.5M"), 2.5e6);
  EXPECT_DOUBLE_EQ(checked_duration("--t", "90s", 0, 1e6), 90);
  EXPECT_DOUBLE_EQ(checked_duration("--t", "30min", 0, 1e6), 1800);
  EXPECT_DOUBLE_EQ(checked_duration("--t", "1.5", 0, 1e6, true), 1.5);
  EXPECT_DOUBLE_EQ(checked_bandwidth("--b", "400Gb"), 5e10);
}

TEST(CheckedNumbers, SayWhatTheyWant) {
  EXPECT_EQ(refusal_of([] { checked_count("--tokens", "1e3.5", 1, 100); }),
            "--tokens: got '1e3.5', want a count, 1 to 100 (10k, 1Mi, ...)");
  EXPECT_EQ(refusal_of([] { checked_count("--tokens", "0", 1); }),
            "--tokens: got '0', want a count, at least 1 (10k, 1Mi, ...)");
  EXPECT_EQ(refusal_of([] { checked_count("--seed", "18446744073709551615", 0); }),
            "--seed: got '18446744073709551615', want a count, at least 0, below 2^63 (10k, 1Mi, "
            "...)");
  EXPECT_EQ(refusal_of([] { checked_real("--top-p", "1.01", 0, 1); }),
            "--top-p: got '1.01', want a number, 0 to 1");
  EXPECT_EQ(refusal_of([] { checked_duration("--grace", "30", 0, 2 * 86400); }),
            "--grace: got '30', want a time, 0s to 2d (250ms, 30s, 10min, 2h)");
  EXPECT_EQ(refusal_of([] { checked_counts("--sizes", "1,,2", 1, 9); }),
            "--sizes: got '', want counts, 1 to 9, with commas between, like 512,4Ki");
}

TEST(CheckedNumbers, RefuseWhatIsNoNumberOrOutside) {
  for (const char* text : {"", "abc", "-1", "1.5", "nan", "inf", "1e3.5", "0x10", " 5", "5 ", "5x",
                           "99999999999999999999", "101", "0"}) {
    EXPECT_NE(refusal_of([&] { checked_count("--n", text, 1, 100); }), "") << text;
    EXPECT_NE(refusal_of([&] { checked_counts("--n", text, 1, 100); }), "") << text;
  }
  for (const char* text : {"1,", ",1", "1,,2", "1;2", "1, 2"})
    EXPECT_NE(refusal_of([&] { checked_counts("--n", text, 1); }), "") << text;
  for (const char* text : {"", "abc", "-0.1", "nan", "inf", "1e999", "1e3.5", "1.1", "0.5x"})
    EXPECT_NE(refusal_of([&] { checked_real("--x", text, 0, 1); }), "") << text;
  for (const char* text : {"", "0", "-5", "nan", "inf", "1e19", "fast", "5x"})
    EXPECT_NE(refusal_of([&] { checked_speed("--x", text); }), "") << text;
  for (const char* text : {"", "5", "-5s", "nan", "1e9s", "5sec", "1001s"})
    EXPECT_NE(refusal_of([&] { checked_duration("--t", text, 0, 1000); }), "") << text;
  for (const char* text : {"nan", "inf", "-1", "1001"})
    EXPECT_NE(refusal_of([&] { checked_duration("--t", text, 0, 1000, true); }), "") << text;
  for (const char* text : {"", "0Gb", "400", "1e3Gb", "9999999TB", "-1GB"})
    EXPECT_NE(refusal_of([&] { checked_bandwidth("--b", text); }), "") << text;
}

TEST(CheckedNumbers, ShowWhatWasGivenOnOneLine) {
  EXPECT_EQ(refusal_of([] { checked_count("--n", "1\n2", 1, 9); }),
            "--n: got '1\\x0a2', want a count, 1 to 9 (10k, 1Mi, ...)");
}

}  // namespace
}  // namespace polysketch
