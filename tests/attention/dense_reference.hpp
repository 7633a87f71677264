// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "attention/attention.hpp"
#include "attention/documents.hpp"
#include "support/philox.hpp"

// Attention as method.md §2 writes it: the whole T x T matrix of weights, in fp64, from LibTorch
// calls with LibTorch's own gradients.

namespace polysketch::test {

/// [T, T] or [B, 1, T, T], true where query i sees key j.
inline at::Tensor visible(int64_t length, const Documents& documents = {}) {
  const at::Tensor position = at::arange(length);
  const at::Tensor causal = position.unsqueeze(0).le(position.unsqueeze(1));
  if (!documents.defined()) return causal;
  return position.view({1, 1, 1, length})
      .ge(documents.starts().view({-1, 1, length, 1}))
      .logical_and(causal);
}

inline at::Tensor dense_polynomial(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   int64_t degree, const Documents& documents = {}) {
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)).pow(static_cast<double>(degree));
  const at::Tensor weights = scores.masked_fill(visible(q.size(2), documents).logical_not(), 0);
  return at::matmul(weights, v) / (1 + weights.sum(3, true));
}

inline at::Tensor dense_polynomial_normed(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const at::Tensor& gain,
                                          const at::Tensor& bias, int64_t degree,
                                          const Documents& documents = {}) {
  const auto norm = [&](const at::Tensor& x) {
    return at::layer_norm(x, {x.size(3)}, gain, bias, 1e-5);
  };
  return dense_polynomial(norm(q), norm(k), v, degree, documents);
}

inline at::Tensor dense_softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const Documents& documents = {}) {
  const at::Tensor scores =
      at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  return at::matmul(
      scores.masked_fill(visible(q.size(2), documents).logical_not(), -INFINITY).softmax(3), v);
}

using NamedTensors = std::map<std::string, at::Tensor>;

inline NamedTensors named(const std::vector<AttentionParameter>& some,
                          const std::vector<AttentionParameter>& more = {}) {
  NamedTensors all;
  for (const auto& one : some) all[one.name] = one.value;
  for (const auto& one : more) all[one.name] = one.value;
  return all;
}

inline at::Tensor dense_norm(const at::Tensor& x, const NamedTensors& p, const std::string& name) {
  return at::layer_norm(x, {x.size(-1)}, p.at(name + ".gain"), p.at(name + ".bias"), 1e-5);
}

/// P Algorithm 2 (`learned`) and Algorithm 1, recursively: x [..., D] -> [..., R].
inline at::Tensor dense_sketch(const at::Tensor& x, int64_t degree, const NamedTensors& p,
                               const std::string& name, bool learned) {
  if (degree == 1) return x;
  const auto side = [&](const std::string& which) {
    const std::string inner = learned ? which + ".input" : which;
    const at::Tensor half = dense_sketch(x, degree / 2, p, inner, learned);
    if (!learned) return at::matmul(half, p.at(which));
    at::Tensor y = half;
    for (const char* level : {".0", ".1"}) {
      const at::Tensor wide = at::gelu(
          at::matmul(dense_norm(y, p, which + level + ".norm"), p.at(which + level + ".up").t()),
          "tanh");
      y = at::matmul(wide, p.at(which + level + ".down").t());
    }
    return y;
  };
  const at::Tensor product = side(name + ".left") * side(name + ".right");
  if (!learned) return product;
  const double root = std::sqrt(static_cast<double>(product.size(-1)));
  return at::tanh(product / root) * root;
}

/// [T, T] or [B, 1, T, T], true where both lie in one block; blocks are counted from where a
/// document begins.
inline at::Tensor same_block(int64_t length, int64_t block, const Documents& documents) {
  const at::Tensor position = at::arange(length).unsqueeze(0);
  const at::Tensor start =
      documents.defined() ? documents.starts().to(at::kLong) : at::zeros_like(position);
  const at::Tensor number = start * length + (position - start).div(block, "floor");
  return number.unsqueeze(1).eq(number.unsqueeze(2)).unsqueeze(1);
}

inline at::Tensor dense_performer(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& projection, const Documents& documents) {
  const double width = static_cast<double>(q.size(3));
  const auto exponent = [&](const at::Tensor& x) {
    return at::matmul(x, projection.t()) / std::pow(width, 0.25) -
           x.square().sum(3, true) / (2 * std::sqrt(width));
  };
  const auto score = [&](const at::Tensor& x) {
    return at::matmul(x, projection.t()) / std::pow(width, 0.25);
  };
  const at::Tensor query = (exponent(q) - score(q).amax(3, true)).exp() + 1e-6;
  // For query i, key j counts exp(u_j − m_j) + 1e-6 with m_j the maximum up to j of its document,
  // times exp(m_j − m_i).
  const at::Tensor seen = visible(q.size(2), documents), largest = score(k).amax(3);  // [B, H, T]
  const at::Tensor running = largest.unsqueeze(2)
                                 .expand({-1, -1, q.size(2), -1})
                                 .masked_fill(seen.logical_not(), -INFINITY)
                                 .amax(3);
  const at::Tensor key = (exponent(k) - running.unsqueeze(3)).exp() + 1e-6;
  const at::Tensor scale = (running.unsqueeze(2) - running.unsqueeze(3))
                               .masked_fill(seen.logical_not(), -INFINITY)
                               .exp();
  const at::Tensor weights =
      at::matmul(query, key.transpose(2, 3)) * scale / static_cast<double>(projection.size(0));
  const at::Tensor sum = weights.sum(3, true);
  return at::matmul(weights, v) / at::where(sum.abs() <= 1e-6, sum + 2e-6, sum);
}

/// Any mechanism, from its learned and drawn tensors.
inline at::Tensor dense_attention(const AttentionConfig& config, const NamedTensors& p,
                                  const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const Documents& documents = {}) {
  const int64_t length = q.size(2);
  const at::Tensor hidden = visible(length, documents).logical_not();
  const auto normalised = [&](const at::Tensor& weights, double one) {
    const at::Tensor kept = weights.masked_fill(hidden, 0);
    return at::matmul(kept, v) / (one + kept.sum(3, true));
  };
  const auto power = [](const at::Tensor& a, const at::Tensor& b, int64_t degree) {
    return at::matmul(a, b.transpose(2, 3)).pow(static_cast<double>(degree));
  };
  switch (config.kind) {
    case AttentionKind::softmax:
      return dense_softmax(q, k, v, documents);
    case AttentionKind::polynomial:
      return dense_polynomial_normed(q, k, v, p.at("norm.gain"), p.at("norm.bias"), config.degree,
                                     documents);
    case AttentionKind::performer:
      return dense_performer(q, k, v, p.at("projection"), documents);
    case AttentionKind::sliding_window: {
      const at::Tensor i = at::arange(length).unsqueeze(1),
                       near = at::arange(length).unsqueeze(0).gt(i - config.window);
      const at::Tensor scores =
          at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
      return at::matmul(
          scores.masked_fill(hidden.logical_or(near.logical_not()), -INFINITY).softmax(3), v);
    }
    case AttentionKind::hedgehog: {
      const auto features = [&](const at::Tensor& x) {
        const at::Tensor y = at::matmul(x, p.at("features").t());
        return at::cat({y.softmax(3), (-y).softmax(3)}, 3);
      };
      return normalised(power(features(q), features(k), 1), 0);
    }
    case AttentionKind::local_polynomial:
      return normalised(power(dense_norm(q, p, "norm"), dense_norm(k, p, "norm"), config.degree) *
                            same_block(length, config.block, documents),
                        1);
    case AttentionKind::polysketch:
      break;
  }
  const bool learned = config.sketch == SketchKind::learned,
             local = config.local == LocalAttention::exact;
  const at::Tensor a = learned ? q : dense_norm(q, p, "norm"),
                   b = learned ? k : dense_norm(k, p, "norm");
  const auto sketch = [&](const at::Tensor& x) {
    return dense_sketch(x, config.degree / 2, p, "sketch", learned);
  };
  at::Tensor weights = power(sketch(a), sketch(b), 2);
  if (local) {
    const at::Tensor exact = power(learned ? dense_norm(q, p, "query_norm") : a,
                                   learned ? dense_norm(k, p, "key_norm") : b, config.degree);
    weights = at::where(same_block(length, config.block, documents), exact, weights);
  }
  return normalised(weights, 1);
}

/// Standard normal numbers that are the same on every machine.
inline at::Tensor normal(at::IntArrayRef shape, Philox& random, at::ScalarType type = at::kDouble) {
  at::Tensor x = at::empty(shape, at::kDouble);
  double* data = x.mutable_data_ptr<double>();
  for (int64_t i = 0; i < x.numel(); ++i) data[i] = random.normal();
  return x.to(type);
}

/// Norm of the difference over the norm of the reference; NaN where either has one.
inline double relative_error(const at::Tensor& value, const at::Tensor& reference) {
  const at::Tensor want = reference.to(at::kDouble);
  return ((value.to(at::kDouble) - want).norm() / (want.norm() + 1e-300)).item<double>();
}

/// Documents of random lengths in each row.
inline Documents random_documents(int64_t batch, int64_t length, Philox& random,
                                  uint64_t mean_length) {
  at::Tensor ids = at::zeros({batch, length}, at::kInt);
  int32_t* id = ids.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < batch * length; ++i)
    id[i] = i % length == 0 ? 0 : id[i - 1] + (random.bounded(mean_length) == 0 ? 1 : 0);
  return Documents(ids);
}

}  // namespace polysketch::test
