// SPDX-License-Identifier: Apache-2.0
#include "attention/performer.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "attention/arithmetic.hpp"
#include "attention/linear_cost.hpp"
#include "attention/performer_features.hpp"
#include "attention/recomputed.hpp"
#include "attention/recurrent.hpp"
#include "support/philox.hpp"

namespace polysketch {
namespace {

constexpr int64_t kDefaultFeatures = 2048;
constexpr double kEpsilon = 1e-6;

/// The largest score of a text for each of its positions, [..., T]: up to there, or of all.
at::Tensor maximum(const at::Tensor& largest, Stabiliser stabiliser) {
  if (stabiliser == Stabiliser::causal) return std::get<0>(largest.cummax(-1));
  return largest.amax(-1, true).expand_as(largest);
}

/// What is taken off the exponents of the keys, from the largest of each, [B, H, T]; documents have
/// their own.
at::Tensor key_maximum(const at::Tensor& largest, Stabiliser stabiliser,
                       const Documents& documents) {
  if (!documents.defined()) return maximum(largest, stabiliser);
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < largest.size(0); ++row) {
    std::vector<at::Tensor> parts;
    for (const at::Tensor& part : largest.select(0, row).split_with_sizes(
             documents.lengths()[static_cast<size_t>(row)], 1)) {
      parts.push_back(maximum(part, stabiliser));
    }
    rows.push_back(at::cat(parts, 1));
  }
  return at::stack(rows);
}

LinearAttention kernel(const at::Tensor& v, int64_t block) {
  LinearAttention call;
  call.v = v;
  call.power = 1;
  call.block = std::min(block, kFeatureBlock);
  call.normaliser_offset = 0;
  call.divisor_floor = kEpsilon;
  return call;
}

at::Tensor query_features(const at::Tensor& q, const at::Tensor& projection) {
  return exponential_features(q, projection, largest_exponents(q, projection), kEpsilon);
}

}  // namespace

at::Tensor orthogonal_features(int64_t features, int64_t width, const AttentionDraw& draw,
                               int64_t number) {
  Philox random(draw.seed, RandomPurpose::sketch,
                static_cast<uint64_t>(draw.layer) + (static_cast<uint64_t>(number) << 20));
  at::Tensor rows = at::empty({features, width}, at::kDouble);
  const auto normals = [&](double* x) {
    for (int64_t i = 0; i < width; ++i) x[i] = random.normal();
  };
  const auto dot = [&](const double* x, const double* y) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += x[i] * y[i];
    return sum;
  };
  auto* data = rows.mutable_data_ptr<double>();
  std::vector<double> other(static_cast<size_t>(width));
  for (int64_t row = 0; row < features; ++row) {
    double* x = data + row * width;
    normals(x);
    // twice is enough to lose what the first subtraction rounded
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t before = row / width * width; before < row; ++before) {
        const double* y = data + before * width;
        const double share = dot(x, y) / dot(y, y);
        for (int64_t i = 0; i < width; ++i) x[i] -= share * y[i];
      }
    }
    normals(other.data());
    const double scale = std::sqrt(dot(other.data(), other.data()) / dot(x, x));
    for (int64_t i = 0; i < width; ++i) x[i] *= scale;
  }
  return rows;
}

PerformerAttention::PerformerAttention(const AttentionConfig& config, const AttentionShape& shape,
                                       const at::TensorOptions& parameters,
                                       const AttentionDraw& draw)
    : block_(config.block),
      redraw_(config.redraw),
      stabiliser_(config.stabiliser),
      shape_(shape),
      draw_(draw) {
  const int64_t count = config.features == 0 ? kDefaultFeatures : config.features;
  projection_ = orthogonal_features(count, shape.head_width, draw, 0)
                    .to(parameters.device(), at::typeMetaToScalarType(parameters.dtype()));
}

void PerformerAttention::at_step(int64_t step) {
  if (redraw_ == 0 || step / redraw_ == drawn_) return;
  drawn_ = step / redraw_;
  projection_.copy_(orthogonal_features(projection_.size(0), projection_.size(1), draw_, drawn_));
}

at::Tensor PerformerAttention::forward(const at::Tensor& q, const at::Tensor& k,
                                       const at::Tensor& v, const Documents& documents) {
  check_attention_inputs(q, k, v, shape_, documents);
  const auto work = [documents, block = block_, stabiliser = stabiliser_, projection = projection_](
                        const at::Tensor& qs, const at::Tensor& ks, const at::Tensor& vs,
                        const std::vector<at::Tensor>&) {
    LinearAttention call = kernel(vs, block);
    call.documents = documents;
    call.a = query_features(qs, projection);
    const at::Tensor largest =
        key_maximum(largest_exponents(ks, projection), stabiliser, documents);
    call.b = exponential_features(ks, projection, largest, kEpsilon);
    if (stabiliser == Stabiliser::causal) call.log_scale = largest;
    return linear_attention(call);
  };
  return recomputed_heads(work, q, k, v, {});
}

AttentionCost PerformerAttention::cost(int64_t length) const {
  LinearCost cost;
  cost.width = cost.near_width = projection_.size(0);
  cost.power = 1;
  cost.block = std::min(block_, kFeatureBlock);
  cost.feature_flops = 4.0 * static_cast<double>(length * projection_.numel());
  cost.keep_features = false;
  return linear_attention_cost(cost, shape_, length);
}

Recurrence PerformerAttention::recurrence() const {
  return stabiliser_ == Stabiliser::paper ? Recurrence::none : Recurrence::constant;
}

std::unique_ptr<AttentionState> PerformerAttention::initial_state() const {
  if (recurrence() == Recurrence::none) {
    throw UserError(ExitCode::config,
                    "attention.stabiliser: paper looks at the whole sequence, so nothing can be "
                    "added to it: use attention.stabiliser=causal");
  }
  return std::make_unique<LinearState>();
}

at::Tensor PerformerAttention::prefill(AttentionState& state, const at::Tensor& q,
                                       const at::Tensor& k, const at::Tensor& v) const {
  const at::NoGradGuard no_grad;
  auto& seen = dynamic_cast<LinearState&>(state);
  LinearAttention call = kernel(v, block_);
  call.a = query_features(q, projection_);
  at::Tensor largest = key_maximum(largest_exponents(k, projection_), stabiliser_, {});
  if (seen.largest.defined()) largest = at::maximum(largest, seen.largest);
  seen.largest = largest.narrow(2, largest.size(2) - 1, 1).clone();
  call.b = exponential_features(k, projection_, largest, kEpsilon);
  call.log_scale = largest;
  return linear_attention_next(seen, call);
}

WeightRows PerformerAttention::weights_of_rows(const at::Tensor& q, const at::Tensor& k,
                                               const at::Tensor& positions) const {
  const at::NoGradGuard no_grad;
  const auto type = wide_type(k);
  // [B, H, T]
  const at::Tensor wide = k.to(type),
                   largest = key_maximum(largest_exponents(wide, projection_), stabiliser_, {});
  at::Tensor products = dot_products(query_features(q.to(type), projection_),
                                     exponential_features(wide, projection_, largest, kEpsilon));
  const at::Tensor hidden = seen_keys(positions, k.size(2), k).logical_not();
  if (stabiliser_ == Stabiliser::causal) {
    const at::Tensor at_query = largest.index_select(2, positions.to(k.device()));
    products = products *
               (largest.unsqueeze(2) - at_query.unsqueeze(3)).clamp_max(0).to(at::kDouble).exp();
  }
  WeightRows rows;
  rows.positions = positions;
  rows.weights = products.masked_fill(hidden, 0);
  rows.divisor = raised_divisor(rows.weights.sum(3), kEpsilon);
  rows.block = block_;
  return rows;
}

}  // namespace polysketch
