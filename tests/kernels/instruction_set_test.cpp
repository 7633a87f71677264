// SPDX-License-Identifier: Apache-2.0
#include "kernels/instruction_set.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "helpers/test_helpers.hpp"

namespace polysketch::kernels {
namespace {

// What the environment asks for is what is used; the tests below start this one again with the
// variable set.
TEST(InstructionSetTest, IsTheOneAskedFor) {
  const char* wanted = std::getenv("POLYSKETCH_ISA");
  if (wanted != nullptr && *wanted != '\0') {
    EXPECT_EQ(name(instruction_set()), wanted);
  } else {
    EXPECT_TRUE(is_supported(instruction_set()));
    for (const InstructionSet set :
         {InstructionSet::avx2, InstructionSet::avx512, InstructionSet::amx}) {
      EXPECT_TRUE(instruction_set() >= set || !is_supported(set)) << name(set);
    }
  }
}

polysketch::test::ProcessResult ask_for(const std::string& value) {
  return polysketch::test::run_process(
      {"/proc/self/exe", "--gtest_filter=InstructionSetTest.IsTheOneAskedFor"},
      {"POLYSKETCH_ISA=" + value});
}

TEST(InstructionSetTest, ObeysTheEnvironment) {
  for (const InstructionSet set : {InstructionSet::baseline, InstructionSet::avx2,
                                   InstructionSet::avx512, InstructionSet::amx}) {
    if (!is_supported(set)) continue;
    const auto result = ask_for(std::string(name(set)));
    EXPECT_EQ(result.exit_code, 0) << result.out;
  }
  EXPECT_EQ(ask_for("").exit_code, 0);
}

TEST(InstructionSetTest, RefusesAnUnknownName) {
  const auto result = ask_for("sse9");
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.out,
              testing::HasSubstr("POLYSKETCH_ISA: got 'sse9', want baseline, avx2, avx512 or amx"));
}

}  // namespace
}  // namespace polysketch::kernels
