// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace polysketch {

/// The type of sums over tensors like x: fp64 for fp64, else fp32.
at::ScalarType wide_type(const at::Tensor& x);

/// x^n by squaring, n >= 0; even powers of a score lose no bits to a logarithm.
at::Tensor integer_power(const at::Tensor& x, int64_t n);

/// 1 / x, and 0 where x is 0 or so small that 1 / x might not be finite: a row without any weight
/// gives zeros.
at::Tensor inverse_or_zero(const at::Tensor& x);

/// x, and x + 2·floor where |x| is not above `floor` (> 0): divisors of kinds whose rows can be
/// without weight.
at::Tensor raised_divisor(const at::Tensor& x, double floor);

}  // namespace polysketch
