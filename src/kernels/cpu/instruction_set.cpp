// SPDX-License-Identifier: Apache-2.0
#include "kernels/instruction_set.hpp"

#include <atomic>
#include <cstdlib>
#include <string>

#include "support/error.hpp"

namespace polysketch::kernels {
namespace {

constexpr InstructionSet kAll[] = {InstructionSet::avx512, InstructionSet::avx2, InstructionSet::baseline};

InstructionSet choose() {
  const char* variable = std::getenv("POLYSKETCH_ISA");
  const std::string wanted = variable == nullptr ? "" : variable;
  for (const InstructionSet set : kAll) {
    if (!wanted.empty() && name(set) != wanted) continue;
    if (is_supported(set)) return set;
    if (!wanted.empty()) throw UserError(ExitCode::config, "POLYSKETCH_ISA: this machine has no " + wanted + "; unset the variable");
  }
  throw UserError(ExitCode::config, "POLYSKETCH_ISA: got '" + wanted + "', want baseline, avx2 or avx512");
}

std::atomic<int>& chosen() {
  static std::atomic<int> value{static_cast<int>(choose())};
  return value;
}

bool has_bf16_instructions() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

std::atomic<bool>& bf16_allowed() {
  static std::atomic<bool> value{has_bf16_instructions()};
  return value;
}

}  // namespace

InstructionSet instruction_set() { return static_cast<InstructionSet>(chosen().load(std::memory_order_relaxed)); }

bool is_supported(InstructionSet set) {
  switch (set) {
    case InstructionSet::baseline:
      return true;
#ifdef __x86_64__
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default:
      return false;
  }
}

void use_instruction_set(InstructionSet set) {
  require(is_supported(set), "use_instruction_set: this machine lacks the instructions");
  chosen().store(static_cast<int>(set), std::memory_order_relaxed);
}

bool bf16_instructions() { return instruction_set() == InstructionSet::avx512 && bf16_allowed().load(std::memory_order_relaxed); }

void use_bf16_instructions(bool wanted) { bf16_allowed().store(wanted && has_bf16_instructions(), std::memory_order_relaxed); }

std::string_view name(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace polysketch::kernels
