// SPDX-License-Identifier: Apache-2.0
#include "attention/weight_figures.hpp"

#include <ATen/ATen.h>

#include <limits>

namespace polysketch {
namespace {

double number(const at::Tensor& x) { return x.item<double>(); }

/// matrix: [B, H, n, T].
double effective_rank(const at::Tensor& matrix) {
  if (!matrix.isfinite().all().item<bool>()) return std::numeric_limits<double>::quiet_NaN();
  const at::Tensor values = at::linalg_svdvals(matrix), sum = values.sum(-1, true);
  const at::Tensor share = at::where(sum > 0, values / sum, at::zeros_like(values));
  const at::Tensor rank = at::special_entr(share).sum(-1).exp();
  return number(at::where(sum.squeeze(-1) > 0, rank, at::zeros_like(rank)).mean());
}

std::optional<double> share_outside(const WeightRows& rows, const at::Tensor& weights) {
  if (rows.block == 0) return std::nullopt;
  const at::Tensor far = rows.positions.ge(rows.block);  // [n]: keys of earlier blocks exist
  const at::Tensor outside =
      own_block(rows.positions, weights.size(3), rows.block, weights).logical_not();
  const at::Tensor all = weights.sum(3), there = (weights * outside).sum(3);
  const at::Tensor counted = far.logical_and(all > 0);  // [B, H, n]
  if (!counted.any().item<bool>()) return std::nullopt;
  return number((there / all).masked_select(counted).mean());
}

}  // namespace

WeightFigures weight_figures(const WeightRows& rows) {
  const auto here = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
  const at::Tensor weights = here(rows.weights), divisor = here(rows.divisor);
  WeightFigures figures;
  if (rows.sketched.defined()) {
    const at::Tensor exact = here(rows.exact);
    figures.sketch_error = number((here(rows.sketched) - exact).norm() / exact.norm());
  }
  figures.smallest_normaliser = number(divisor.min());
  if (rows.largest_score.defined()) figures.largest_score = number(here(rows.largest_score).max());
  figures.share_outside_block = share_outside(rows, weights);
  figures.effective_rank = effective_rank(at::where(
      divisor.unsqueeze(3) != 0, weights / divisor.unsqueeze(3), at::zeros_like(weights)));
  return figures;
}

}  // namespace polysketch
