// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/head_rows.hpp"

// The learned sketch of degree 2 (docs/method.md §2; P §2.3, Algorithm 2) of rows, on raw pointers,
// for the CPU. Two networks of two levels each,
//   level(x) = gelu(LN(x)·upᵀ)·downᵀ,      f(x) = level1(level0(x)),
//   s = √R·tanh(f_left(x) ∘ f_right(x) / √R),
// with gelu in the tanh form and LN with epsilon 1e-5. Nothing here allocates or starts threads.

namespace polysketch::kernels {

/// fp32 parameters, indexed by side (left, right) and level. in = width at level 0, R = size at
/// level 1.
struct SketchNetwork {
  const float* gain[2][2];  ///< [in]
  const float* bias[2][2];  ///< [in]
  const float* up[2][2];    ///< [8 R, in]
  const float* down[2][2];  ///< [R, 8 R]
};

/// One implementation. packed and scratch: 64-byte aligned; their sizes do not depend on the number
/// of rows.
template <class T>
struct SketchKernels {
  const char* name;
  int64_t unit;  ///< widths are multiples of it
  size_t (*packed_bytes)(int64_t width, int64_t size);
  /// Parameters as the other two functions read them; many threads may then read them at once.
  void (*pack)(const SketchNetwork& network, int64_t width, int64_t size, void* packed);
  size_t (*forward_scratch)(int64_t width, int64_t size);   ///< bytes
  size_t (*backward_scratch)(int64_t width, int64_t size);  ///< bytes
  /// x [rows, width] -> s [rows, size].
  void (*forward)(const void* packed, int64_t width, int64_t size, HeadRows<const T> x,
                  int64_t rows, HeadRows<T> s, void* scratch);
  /// Nothing is kept from the forward pass. dx: overwritten. parameter_gradients, added to: for
  /// each side, then each level, the gradients of gain, bias, up, down one after another. A call
  /// has a cost that grows with the number of parameters, so slices of rows should not be smaller
  /// than some hundreds.
  void (*backward)(const void* packed, int64_t width, int64_t size, HeadRows<const T> x,
                   int64_t rows, HeadRows<const T> ds, HeadRows<T> dx, float* parameter_gradients,
                   void* scratch);
};

/// The best implementation of this machine, or null if there is none for these widths: the caller
/// then uses LibTorch. Built for float and bf16. bf16 rows are multiplied as bf16 where the
/// processor can (bf16_instructions()), else as fp32; only what enters a product is rounded.
template <class T>
const SketchKernels<T>* sketch_kernels(int64_t width, int64_t size);

}  // namespace polysketch::kernels
