// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/head_rows.hpp"

// Exact polynomial attention of one head of one sequence, on raw pointers, for the CPU
// (docs/method.md §2). Nothing here allocates or starts threads.

namespace polysketch::kernels {

/// w_ij = (q'_i·k'_j·key_scale)^degree for starts[i] <= j <= i, where ' is the layer norm with
/// `gain` and `bias`, or nothing if gain is null. o_i = sum_j w_ij v_j / (normaliser_offset + sum_j
/// w_ij); 0 where the divisor is 0.
template <class T>
struct PolynomialHead {
  HeadRows<const T> q, k, v;
  int64_t length = 0;           ///< T
  int64_t width = 0;            ///< D
  int64_t degree = 0;           ///< even
  const float* gain = nullptr;  ///< [D] or null
  const float* bias = nullptr;  ///< [D] or null
  float epsilon = 1e-5F;
  const int32_t* starts = nullptr;  ///< [T] non-decreasing, or null for zeros
  float key_scale = 1;
  float normaliser_offset = 1;
};

template <class T>
struct PolynomialForward {
  PolynomialHead<T> head;
  HeadRows<T> output;
  float* normaliser = nullptr;  ///< [T] normaliser_offset + row sum
};

/// The weights are computed again from q and k.
template <class T>
struct PolynomialBackward {
  PolynomialHead<T> head;
  HeadRows<const T> output;
  const float* normaliser = nullptr;  ///< [T]
  HeadRows<const T> output_gradient;
  HeadRows<T> dq, dk, dv;
  float* dgain = nullptr;  ///< [D] receives this head's share, or null where gain is null
  float* dbias = nullptr;  ///< [D] likewise
};

/// One implementation. Queries [begin, end) of the forward pass can be computed alone: the caller
/// cuts heads into slices where it has more threads than heads. scratch: 64-byte aligned.
template <class T>
struct PolynomialKernels {
  const char* name;
  int64_t unit;                                               ///< widths are multiples of it
  size_t (*forward_scratch)(int64_t length, int64_t width);   ///< bytes
  size_t (*backward_scratch)(int64_t length, int64_t width);  ///< bytes, linear in length
  void (*forward)(const PolynomialForward<T>& a, int64_t begin, int64_t end, void* scratch);
  void (*backward)(const PolynomialBackward<T>& a, void* scratch);
};

/// The best implementation of this machine for rows of `width` elements, or null if there is none:
/// the caller then uses LibTorch. Built for float and bf16. bf16 rows are multiplied as bf16 where
/// the processor can (AVX512-BF16), else as fp32; scores, powers, row sums and all accumulators are
/// fp32.
template <class T>
const PolynomialKernels<T>* polynomial_kernels(int64_t width);

}  // namespace polysketch::kernels
