// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/instruction_set.hpp"
#include "support/philox.hpp"

namespace polysketch::kernels::test {

/// An instruction set, and whether bf16 is rounded by instructions of its own.
struct Variant {
  InstructionSet set;
  bool bf16_instructions;
};
inline std::string name(const Variant& variant) {
  return std::string(kernels::name(variant.set)) + (variant.bf16_instructions ? "_bf16" : "");
}
inline void PrintTo(const Variant& variant, std::ostream* out) { *out << name(variant); }

/// A test that runs once a variant; those that the machine lacks are skipped.
class KernelTest : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (!is_supported(GetParam().set)) GTEST_SKIP() << "this machine has no " << name(GetParam());
    use_instruction_set(GetParam().set);
    use_bf16_instructions(GetParam().bf16_instructions);
    if (bf16_instructions() != GetParam().bf16_instructions)
      GTEST_SKIP() << "this machine has no " << name(GetParam());
  }
  void TearDown() override {
    use_bf16_instructions(true);
    use_instruction_set(before_);
  }

  Philox random{1, RandomPurpose::test};

 private:
  InstructionSet before_ = instruction_set();
};

#define POLYSKETCH_EVERY_INSTRUCTION_SET(fixture)                                      \
  INSTANTIATE_TEST_SUITE_P(, fixture,                                                  \
                           ::testing::Values(Variant{InstructionSet::baseline, false}, \
                                             Variant{InstructionSet::avx2, false},     \
                                             Variant{InstructionSet::avx512, false},   \
                                             Variant{InstructionSet::avx512, true},    \
                                             Variant{InstructionSet::amx, true}),      \
                           [](const auto& test) { return name(test.param); })

inline double widen(float x) { return x; }
inline double widen(double x) { return x; }
inline double widen(bf16 x) { return to_float(x); }
inline void narrow(float& to, double x) { to = static_cast<float>(x); }
inline void narrow(double& to, double x) { to = x; }
inline void narrow(bf16& to, double x) { to = to_bf16(static_cast<float>(x)); }

/// Half a unit in the last place, relative.
template <class T>
double rounding() {
  if constexpr (std::is_same_v<T, double>) return 0x1p-53;
  return std::is_same_v<T, float> ? 0x1p-24 : 0x1p-8;
}

/// Normal numbers times `scale`, rounded to T.
template <class T>
std::vector<T> normals(Philox& random, int64_t count, double scale = 1, double mean = 0) {
  std::vector<T> result(static_cast<size_t>(count));
  for (T& x : result) narrow(x, mean + scale * random.normal());
  return result;
}

template <class T>
std::vector<double> widened(const std::vector<T>& from) {
  std::vector<double> result;
  result.reserve(from.size());
  for (const T& x : from) result.push_back(widen(x));
  return result;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || __builtin_memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// got = want, but for the rounding to T and for `units` fp32 (fp64) roundings of the greatest
/// wanted magnitude, or of `floor` where what was added up on the way is larger than the result.
template <class T>
void expect_close(const std::vector<T>& got, const std::vector<double>& want, double units,
                  const char* what, double floor = 1e-30) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double greatest = floor;
  for (const double x : want) greatest = std::max(greatest, std::abs(x));
  const double computing = units * rounding<Real<T>>() * greatest;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(widen(got[i]) - want[i]);
    ASSERT_LE(error, 1.01 * rounding<T>() * std::abs(want[i]) + computing)
        << what << "[" << i << "] is " << widen(got[i]) << ", want " << want[i];
  }
}

/// The slope of f at x[i] by central differences; x is restored.
template <class F>
double slope(F f, double& x, double step = 1e-5) {
  const double at = x;
  x = at + step;
  const double above = f();
  x = at - step;
  const double below = f();
  x = at;
  return (above - below) / (2 * step);
}

}  // namespace polysketch::kernels::test
