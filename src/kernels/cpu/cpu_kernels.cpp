// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_kernels.hpp"

#include <sys/syscall.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <string>

#include "support/error.hpp"

namespace polysketch::kernels {
namespace {

/// In order of preference.
constexpr const CpuKernels* kAll[] = {
#ifdef __x86_64__
    &kAmx, &kAvx512Bf16, &kAvx512, &kAvx2,
#endif
    &kBaseline};

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

bool usable(const CpuKernels& kernels) {
  return is_supported(kernels.set) &&
         (!kernels.bf16_instructions || bf16_allowed().load(std::memory_order_relaxed));
}

/// Place in kAll of the first usable table that `wanted` takes, or the number of tables.
template <class Wanted>
size_t first_usable(const Wanted& wanted) {
  size_t i = 0;
  while (i < std::size(kAll) && !(wanted(*kAll[i]) && usable(*kAll[i]))) ++i;
  return i;
}

size_t choose() {
  const char* variable = std::getenv("POLYSKETCH_ISA");
  const std::string wanted = variable == nullptr ? "" : variable;
  const size_t found = first_usable(
      [&](const CpuKernels& kernels) { return wanted.empty() || name(kernels.set) == wanted; });
  if (found < std::size(kAll)) return found;
  for (const CpuKernels* kernels : kAll) {
    if (name(kernels->set) == wanted)
      throw UserError(ExitCode::config,
                      "POLYSKETCH_ISA: this machine has no " + wanted + "; unset the variable");
  }
  throw UserError(ExitCode::config,
                  "POLYSKETCH_ISA: got '" + wanted + "', want baseline, avx2, avx512 or amx");
}

/// Place in kAll.
std::atomic<size_t>& chosen() {
  static std::atomic<size_t> value{choose()};
  return value;
}

const CpuKernels& in_use() { return *kAll[chosen().load(std::memory_order_relaxed)]; }

/// The first that `find` finds from the table in use on.
template <class Find>
auto first_of(const Find& find) -> decltype(find(*kAll[0])) {
  for (size_t i = chosen().load(std::memory_order_relaxed); i < std::size(kAll); ++i) {
    if (!usable(*kAll[i])) continue;
    if (const auto found = find(*kAll[i]); found != nullptr) return found;
  }
  return nullptr;
}

bool fits(int64_t width, int64_t unit, int64_t most) {
  return width > 0 && width % unit == 0 && width <= most;
}

constexpr int64_t kLanes = 16;  // fp32 numbers of a register

}  // namespace

const RowKernels& row_kernels() {
  return *first_of([](const CpuKernels& kernels) { return kernels.rows; });
}

// Above the limits of the next three, what an implementation goes over again and again is larger
// than the caches of a core.

template <class T>
const PolynomialKernels<T>* polynomial_kernels(int64_t width) {
  return first_of([&](const CpuKernels& kernels) {
    const auto* found = kernels.HeadKernels<T>::polynomial;
    return found != nullptr && fits(width, found->unit, 256) ? found : nullptr;
  });
}

template <class T>
const ChunkStateKernels<T>* chunk_state_kernels(int64_t width, int64_t value_width) {
  return first_of([&](const CpuKernels& kernels) {
    const auto* found = kernels.HeadKernels<T>::chunk_states;
    return found != nullptr && fits(width, found->unit, 128) && fits(value_width, kLanes, 256)
               ? found
               : nullptr;
  });
}

template <class T>
const SketchKernels<T>* sketch_kernels(int64_t width, int64_t size) {
  return first_of([&](const CpuKernels& kernels) {
    const auto* found = kernels.HeadKernels<T>::sketch;
    return found != nullptr && fits(width, found->unit, 256) && fits(size, found->unit, 128)
               ? found
               : nullptr;
  });
}

template const PolynomialKernels<float>* polynomial_kernels(int64_t);
template const PolynomialKernels<bf16>* polynomial_kernels(int64_t);
template const ChunkStateKernels<float>* chunk_state_kernels(int64_t, int64_t);
template const ChunkStateKernels<bf16>* chunk_state_kernels(int64_t, int64_t);
template const SketchKernels<float>* sketch_kernels(int64_t, int64_t);
template const SketchKernels<bf16>* sketch_kernels(int64_t, int64_t);

InstructionSet instruction_set() { return in_use().set; }

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
  const size_t found = first_usable([&](const CpuKernels& kernels) { return kernels.set == set; });
  require(found < std::size(kAll), "use_instruction_set: this machine lacks the instructions");
  chosen().store(found, std::memory_order_relaxed);
}

bool bf16_instructions() { return in_use().bf16_instructions; }

void use_bf16_instructions(bool wanted) {
  const InstructionSet set = instruction_set();
  bf16_allowed().store(wanted && has_bf16_instructions(), std::memory_order_relaxed);
  chosen().store(first_usable([&](const CpuKernels& kernels) { return kernels.set <= set; }),
                 std::memory_order_relaxed);
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
