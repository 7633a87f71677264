// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace polysketch {

// The features of FAVOR+ (performer.hpp), some rows at a time, so that F exponents of a row exist
// in a cache and are written once, as features. Differentiable once with respect to x and
// `largest`; the projection is constant.

/// max_f w_f·x/D^¼ of each row, in the type of the projection: x [B, H, T, D], projection [F, D] ->
/// [B, H, T].
at::Tensor largest_exponents(const at::Tensor& x, const at::Tensor& projection);

/// φ(x) = (exp(w·x/D^¼ − |x|²/(2√D) − largest) + epsilon)/√F, largest [B, H, T]: [B, H, T, F] in
/// the type of x.
at::Tensor exponential_features(const at::Tensor& x, const at::Tensor& projection,
                                const at::Tensor& largest, double epsilon);

}  // namespace polysketch
