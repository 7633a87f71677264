// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "kernels/cpu/instruction_set.hpp"

namespace polysketch::test {

/// Sets the number of threads of LibTorch's loops for a scope.
class ThreadCount {
 public:
  explicit ThreadCount(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~ThreadCount() { at::set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

/// Computes in one way for a scope, with one thread: these tests make thousands of tiny calls.
class InstructionSetScope {
 public:
  explicit InstructionSetScope(kernels::InstructionSet set) : before_(kernels::instruction_set()) {
    kernels::use_instruction_set(set);
  }
  ~InstructionSetScope() { kernels::use_instruction_set(before_); }
  InstructionSetScope(const InstructionSetScope&) = delete;
  InstructionSetScope& operator=(const InstructionSetScope&) = delete;

 private:
  kernels::InstructionSet before_;
  ThreadCount one_{1};
};

/// Runs a test once for each way this machine can compute: its own kernels, and LibTorch calls
/// alone.
class EachInstructionSet : public testing::TestWithParam<kernels::InstructionSet> {
 protected:
  void SetUp() override {
    if (!kernels::is_supported(GetParam()))
      GTEST_SKIP() << "this machine has no " << kernels::name(GetParam());
    scope_.emplace(GetParam());
  }

 private:
  std::optional<InstructionSetScope> scope_;
};

inline std::string instruction_set_name(
    const testing::TestParamInfo<kernels::InstructionSet>& parameter) {
  return std::string(kernels::name(parameter.param));
}

inline auto instruction_sets() {
  return testing::Values(kernels::InstructionSet::baseline, kernels::InstructionSet::avx512,
                         kernels::InstructionSet::amx);
}

}  // namespace polysketch::test
