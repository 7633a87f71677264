// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_kernels.hpp"

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

// AMX multiplies along multiples of 32 numbers, and no table but the first of AVX-512 takes fp32.
TEST(InstructionSetTest, WhatATableLeavesOutIsTakenFromTheNext) {
  if (!is_supported(InstructionSet::amx)) GTEST_SKIP() << "this machine has no AMX";
  const InstructionSet before = instruction_set();
  use_instruction_set(InstructionSet::amx);
  EXPECT_STREQ(polynomial_kernels<bf16>(64)->name, "amx");
  EXPECT_STREQ(polynomial_kernels<bf16>(48)->name, "avx512_bf16");
  EXPECT_STREQ(polynomial_kernels<float>(64)->name, "avx512");
  EXPECT_STREQ(chunk_state_kernels<bf16>(32, 80)->name, "amx");
  EXPECT_STREQ(sketch_kernels<bf16>(64, 48)->name, "avx512_bf16");
  const RowKernels* rows = &row_kernels();
  use_instruction_set(InstructionSet::avx512);
  EXPECT_EQ(rows, &row_kernels()) << "rows have no use for tiles";
  use_bf16_instructions(false);
  EXPECT_NE(rows, &row_kernels());
  EXPECT_STREQ(polynomial_kernels<bf16>(64)->name, "avx512");
  use_bf16_instructions(true);
  use_instruction_set(before);
}

}  // namespace
}  // namespace polysketch::kernels
