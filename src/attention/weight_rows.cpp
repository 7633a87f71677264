// SPDX-License-Identifier: Apache-2.0
#include "attention/weight_rows.hpp"

#include <ATen/ATen.h>

namespace polysketch {
namespace {

at::Tensor queries(const at::Tensor& positions, const at::Tensor& like) {
  return positions.to(like.device()).unsqueeze(1);
}

at::Tensor keys(int64_t length, const at::Tensor& like) {
  return at::arange(length, at::TensorOptions().dtype(at::kLong).device(like.device()))
      .unsqueeze(0);
}

}  // namespace

at::Tensor seen_keys(const at::Tensor& positions, int64_t length, const at::Tensor& like) {
  return keys(length, like).le(queries(positions, like));
}

at::Tensor own_block(const at::Tensor& positions, int64_t length, int64_t block,
                     const at::Tensor& like) {
  return keys(length, like).div(block, "floor").eq(queries(positions, like).div(block, "floor"));
}

at::Tensor dot_products(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.to(at::kDouble), b.to(at::kDouble).transpose(2, 3));
}

WeightRows power_weight_rows(const at::Tensor& weights, int64_t degree, const at::Tensor& positions,
                             const at::Tensor& seen) {
  WeightRows rows;
  rows.positions = positions;
  rows.weights = weights.masked_fill(seen.logical_not(), 0);
  rows.divisor = rows.weights.sum(3) + 1;
  rows.largest_score = rows.weights.amax(3).pow(1.0 / static_cast<double>(degree));
  return rows;
}

}  // namespace polysketch
