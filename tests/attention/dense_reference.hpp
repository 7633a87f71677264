// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

#include <cmath>

#include "attention/documents.hpp"
#include "support/philox.hpp"

// Attention as METHOD §2 writes it: the whole T x T matrix of weights, in fp64, from LibTorch calls with LibTorch's own gradients.

namespace polysketch::test {

/// [T, T] or [B, 1, T, T], true where query i sees key j.
inline at::Tensor visible(int64_t length, const Documents& documents = {}) {
  const at::Tensor position = at::arange(length);
  const at::Tensor causal = position.unsqueeze(0).le(position.unsqueeze(1));
  if (!documents.defined()) return causal;
  return position.view({1, 1, 1, length}).ge(documents.starts().view({-1, 1, length, 1})).logical_and(causal);
}

inline at::Tensor dense_polynomial(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t degree,
                                   const Documents& documents = {}) {
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)).pow(static_cast<double>(degree));
  const at::Tensor weights = scores.masked_fill(visible(q.size(2), documents).logical_not(), 0);
  return at::matmul(weights, v) / (1 + weights.sum(3, true));
}

inline at::Tensor dense_polynomial_normed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gain,
                                          const at::Tensor& bias, int64_t degree, const Documents& documents = {}) {
  const auto norm = [&](const at::Tensor& x) { return at::layer_norm(x, {x.size(3)}, gain, bias, 1e-5); };
  return dense_polynomial(norm(q), norm(k), v, degree, documents);
}

inline at::Tensor dense_softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Documents& documents = {}) {
  const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  return at::matmul(scores.masked_fill(visible(q.size(2), documents).logical_not(), -INFINITY).softmax(3), v);
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
inline Documents random_documents(int64_t batch, int64_t length, Philox& random, uint64_t mean_length) {
  at::Tensor ids = at::zeros({batch, length}, at::kInt);
  int32_t* id = ids.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < batch * length; ++i) id[i] = i % length == 0 ? 0 : id[i - 1] + (random.bounded(mean_length) == 0 ? 1 : 0);
  return Documents(ids);
}

}  // namespace polysketch::test
