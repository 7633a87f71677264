// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace polysketch {

/// out = work(q, k, v, parameters) for some heads, [B, h, T, ·] each -> [B, h, T, E].
/// Differentiable; a pure function of its arguments.
using HeadsFunction = std::function<at::Tensor(const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, const std::vector<at::Tensor>&)>;

/// `work` on a few heads at a time. Kept for backward are q, k and v only: `work` runs again there,
/// so that features much wider than a head exist for a few heads and never for all. Returns [B, H,
/// T, E], in memory [B, T, H, E].
at::Tensor recomputed_heads(const HeadsFunction& work, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::vector<at::Tensor>& parameters);

}  // namespace polysketch
