// SPDX-License-Identifier: Apache-2.0
#include "attention/arithmetic.hpp"

#include <ATen/ATen.h>

namespace polysketch {

at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor integer_power(const at::Tensor& x, int64_t n) {
  if (n == 0) return at::ones_like(x);
  if (n == 1) return x;
  const at::Tensor half = integer_power(x, n / 2), square = half * half;
  return n % 2 == 0 ? square : square * x;
}

at::Tensor inverse_or_zero(const at::Tensor& x) {
  constexpr double kSmallest = 1e-37;
  return at::where(x.abs() < kSmallest, at::zeros_like(x), x.reciprocal());
}

at::Tensor raised_divisor(const at::Tensor& x, double floor) {
  return at::where(x.abs() <= floor, x + 2 * floor, x);
}

}  // namespace polysketch
