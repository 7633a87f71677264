// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/row_kernels.hpp"
#include "support/error.hpp"

// How tensors of rows [N, C] reach the CPU kernels.

namespace polysketch::ops {

template <class T>
T* pointer(const at::Tensor& tensor) {
  require(tensor.is_contiguous(), "a kernel was given a tensor that is not contiguous");
  return static_cast<T*>(tensor.data_ptr());
}

/// Calls f.template operator()<S, A>() with the residual type S and the activation type A of the
/// kernels.
template <class F>
void with_types(at::ScalarType wide, at::ScalarType compute, F&& f) {
  if (wide == at::kDouble) {
    require(compute == at::kDouble, "fp64 sums need fp64 products");
    f.template operator()<double, double>();
  } else if (compute == at::kBFloat16) {
    f.template operator()<float, kernels::bf16>();
  } else {
    require(compute == at::kFloat && wide == at::kFloat, "unsupported pair of types");
    f.template operator()<float, float>();
  }
}
template <class F>
void with_type(at::ScalarType compute, F&& f) {
  with_types(compute == at::kDouble ? at::kDouble : at::kFloat, compute,
             [&]<class S, class A>() { f.template operator()<A>(); });
}

/// Sums over rows are kept apart for each of a fixed number of pieces and then added in order, so
/// that they do not depend on the number of threads.
inline constexpr int64_t kPieces = 16;

inline int64_t pieces_for(int64_t rows) {
  return std::max<int64_t>(1, std::min<int64_t>(kPieces, rows / 32));
}

template <class F>
void in_pieces(int64_t rows, int64_t pieces, F&& f) {
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece)
      f(piece, rows * piece / pieces, rows * (piece + 1) / pieces);
  });
}

/// Rows a thread takes at least, so that a piece of work is worth waking a thread for.
inline int64_t grain(int64_t width) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1));
}

}  // namespace polysketch::ops
