// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "attention/ops/choice.hpp"

namespace polysketch::ops {

/// Rows through the learned sketch network (P Algorithm 2 and App. D; method.md §2): degree 2 is
///   √R·tanh(f₁(x)∘f₂(x)/√R), each f two levels of [layer norm -> dense 8R -> gelu -> dense R],
/// and degree n puts a sketch of degree n/2 of its own in the place of x before each f.
struct SketchCall {
  at::Tensor x;        ///< [n, D], fp32, bf16 or fp64
  int64_t size = 0;    ///< R
  int64_t degree = 2;  ///< a power of two, 2 or more
  /// As list_sketch_parameters() lists them, in fp32 (fp64 for fp64 rows).
  std::vector<at::Tensor> parameters;

  int64_t width() const { return x.size(1); }  ///< D
};

struct SketchGradients {
  at::Tensor x;
  std::vector<at::Tensor> parameters;  ///< in order, fp32 (fp64)
};

/// Columns of the wide layers, in R.
inline constexpr int64_t kSketchExpansion = 8;

/// [n, R], type of x. Rows are computed some at a time, so that nothing 8R wide is kept.
at::Tensor sketch_forward(const SketchCall& call);
/// For a gradient [n, R]; the network is computed again.
SketchGradients sketch_backward(const SketchCall& call, const at::Tensor& gradient);

struct SketchImplementation : Implementation {
  bool (*fits)(const SketchCall& call);
  at::Tensor (*forward)(const SketchCall& call);
  SketchGradients (*backward)(const SketchCall& call, const at::Tensor& gradient);
};

/// fp32 and bf16 on processors with AVX-512, degree 2, widths and sizes that are multiples of 16.
/// The same bits for any number of threads.
extern const SketchImplementation sketch_cpu;

/// LibTorch calls; backward by autograd, a slice of rows at a time.
extern const SketchImplementation sketch_aten;

/// Gradients of parameters are added up in order over so many strips of rows, whatever the number
/// of threads.
inline constexpr int64_t kSketchStrips = 32;

}  // namespace polysketch::ops
