// SPDX-License-Identifier: Apache-2.0
#include "kernels/instruction_set.hpp"

#include <sys/syscall.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <string>

#include "support/error.hpp"

namespace polysketch::kernels {
namespace {

constexpr InstructionSet kAll[] = {InstructionSet::amx, InstructionSet::avx512,
                                   InstructionSet::avx2, InstructionSet::baseline};

InstructionSet choose() {
  const char* variable = std::getenv("POLYSKETCH_ISA");
  const std::string wanted = variable == nullptr ? "" : variable;
  for (const InstructionSet set : kAll) {
    if (!wanted.empty() && name(set) != wanted) continue;
    if (is_supported(set)) return set;
    if (!wanted.empty())
      throw UserError(ExitCode::config,
                      "POLYSKETCH_ISA: this machine has no " + wanted + "; unset the variable");
  }
  throw UserError(ExitCode::config,
                  "POLYSKETCH_ISA: got '" + wanted + "', want baseline, avx2, avx512 or amx");
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

/// Whether there are tiles for bf16 products, and the kernel gives them to this process: it is
/// asked once, since the tiles' 8 kB of registers enlarge what every thread saves.
bool has_tiles() {
#ifdef __x86_64__
  static const bool granted = [] {
    // of EDX, leaf 7 (Intel SDM, CPUID)
    constexpr unsigned kTileBit = 1U << 24, kBf16Bit = 1U << 22;
    constexpr long kRequestPermission = 0x1023,
                   kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTileBit) == 0 || (d & kBf16Bit) == 0)
      return false;
    return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

std::atomic<bool>& bf16_allowed() {
  static std::atomic<bool> value{has_bf16_instructions()};
  return value;
}

}  // namespace

InstructionSet instruction_set() {
  return static_cast<InstructionSet>(chosen().load(std::memory_order_relaxed));
}

bool is_supported(InstructionSet set) {
  switch (set) {
    case InstructionSet::baseline:
      return true;
#ifdef __x86_64__
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::amx:
      return is_supported(InstructionSet::avx512) && has_bf16_instructions() && has_tiles();
#endif
    default:
      return false;
  }
}

void use_instruction_set(InstructionSet set) {
  require(is_supported(set), "use_instruction_set: this machine lacks the instructions");
  chosen().store(static_cast<int>(set), std::memory_order_relaxed);
}

bool bf16_instructions() {
  return instruction_set() >= InstructionSet::avx512 &&
         bf16_allowed().load(std::memory_order_relaxed);
}

void use_bf16_instructions(bool wanted) {
  bf16_allowed().store(wanted && has_bf16_instructions(), std::memory_order_relaxed);
}

std::string_view name(InstructionSet set) {
  switch (set) {
    case InstructionSet::amx:
      return "amx";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace polysketch::kernels
