// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "attention/attention.hpp"

namespace polysketch {

/// A sketch s: R^D -> R^R of degree n = p/2, a power of two, whose squared dot products stand for
/// the p-th powers of those of its inputs: (s(x)·s(y))² for (x·y)^p (method.md §2). Degree 1 is the
/// input itself. Shared by heads, queries and keys.
class Sketch {
 public:
  virtual ~Sketch() = default;

  /// x: [B, H, T, D], any strides, fp32, bf16 or fp64 -> [B, H, T, R], same type. Differentiable
  /// once.
  virtual at::Tensor operator()(const at::Tensor& x) const = 0;

  /// R, or D for degree 1.
  virtual int64_t size() const = 0;

  /// Multiplications and additions for one vector forward.
  virtual double flops() const = 0;

  virtual std::vector<AttentionParameter> parameters() const { return {}; }
  virtual std::vector<AttentionParameter> constants() const { return {}; }
};

/// P Algorithm 1: sketch(x, 1) = x, sketch(x, n) = c·(sketch(x, n/2) G₁)∘(sketch(x, n/2)' G₂) with
/// independent standard normal G and halves. paper: c = √(1/R), unbiased. code: c = 1/R, as the
/// published code has it. Matrices are drawn from (seed, layer) and never trained.
std::unique_ptr<Sketch> make_random_sketch(int64_t width, int64_t size, int64_t degree,
                                           SketchScale scale, const AttentionDraw& draw,
                                           const at::TensorOptions& options);

/// P Algorithm 2 and App. D: the same recursion with √R·tanh(f₁(·)∘f₂(·)/√R) in place of the
/// products with G, each f two levels of [layer norm -> dense 8R -> gelu -> dense R] without
/// biases. Rows are computed some at a time and again in backward, so that nothing 8R wide is kept.
std::unique_ptr<Sketch> make_learned_sketch(int64_t width, int64_t size, int64_t degree,
                                            const at::TensorOptions& options);

}  // namespace polysketch
