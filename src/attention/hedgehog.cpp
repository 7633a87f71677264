// SPDX-License-Identifier: Apache-2.0
#include "attention/hedgehog.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "attention/arithmetic.hpp"
#include "attention/linear_cost.hpp"
#include "attention/recomputed.hpp"
#include "attention/recurrent.hpp"

namespace polysketch {
namespace {

// Softmaxes of large scores can be 1 in different places: the first rows of a text may then have no
// weight at all.
constexpr double kFloor = 1e-12;

constexpr int64_t kTile = 32;  // bf16 numbers of a row of AMX

at::Tensor feature_map(const at::Tensor& x, const at::Tensor& matrix) {
  const at::Tensor y = at::linear(x, matrix.to(x.scalar_type()));
  const at::Tensor features = at::cat({at::softmax(y, -1), at::softmax(-y, -1)}, -1);
  // With AMX, oneDNN's products of bf16 rows read past the end of a row that is no whole number of
  // tiles and multiply by zero what they find: a NaN at the beginning of the next row. Features
  // that are zero keep it away.
  const int64_t rest = features.size(-1) % kTile;
  if (!features.is_cpu() || features.scalar_type() != at::kBFloat16 || rest == 0) return features;
  return at::constant_pad_nd(features, {0, kTile - rest});
}

LinearAttention kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const at::Tensor& matrix, int64_t block) {
  LinearAttention call;
  call.a = feature_map(q, matrix);
  call.b = feature_map(k, matrix);
  call.v = v;
  call.power = 1;
  call.block = std::min(block, kFeatureBlock);
  call.normaliser_offset = 0;
  call.divisor_floor = kFloor;
  return call;
}

}  // namespace

HedgehogAttention::HedgehogAttention(const AttentionConfig& config, const AttentionShape& shape,
                                     const at::TensorOptions& parameters)
    : block_(config.block), shape_(shape) {
  const int64_t features = config.features == 0 ? 2 * shape.head_width : config.features;
  if (features % 2 != 0) {
    throw UserError(
        ExitCode::config,
        fmt::format("attention.features: got {}, want an even number for hedgehog", features));
  }
  features_ = at::randn({features / 2, shape.head_width}, parameters) /
              std::sqrt(static_cast<double>(shape.head_width));
  features_.requires_grad_();
}

at::Tensor HedgehogAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  const auto work = [documents, block = block_](const at::Tensor& qs, const at::Tensor& ks,
                                                const at::Tensor& vs,
                                                const std::vector<at::Tensor>& parameters) {
    LinearAttention call = kernel(qs, ks, vs, parameters[0], block);
    call.documents = documents;
    return linear_attention(call);
  };
  return recomputed_heads(work, q, k, v, {features_});
}

AttentionCost HedgehogAttention::cost(int64_t length) const {
  LinearCost cost;
  cost.width = cost.near_width = 2 * features_.size(0);
  cost.power = 1;
  cost.block = std::min(block_, kFeatureBlock);
  cost.feature_flops = 4.0 * static_cast<double>(length * features_.numel());
  cost.keep_features = false;
  return linear_attention_cost(cost, shape_, length);
}

std::unique_ptr<AttentionState> HedgehogAttention::initial_state() const {
  return std::make_unique<LinearState>();
}

at::Tensor HedgehogAttention::prefill(AttentionState& state, const at::Tensor& q,
                                      const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  return linear_attention_next(dynamic_cast<LinearState&>(state),
                               kernel(q, k, v, features_, block_));
}

WeightRows HedgehogAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                              const at::Tensor& positions) const {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(k);
  const at::Tensor products =
      dot_products(feature_map(q.to(type), features_), feature_map(k.to(type), features_));
  WeightRows rows;
  rows.positions = positions;
  rows.weights = products.masked_fill(seen_keys(positions, k.size(2), k).logical_not(), 0);
  rows.divisor = raised_divisor(rows.weights.sum(3), kFloor);
  rows.block = block_;
  return rows;
}

}  // namespace polysketch
