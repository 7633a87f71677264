// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/head_rows.hpp"

// What queries see of earlier blocks, by states of degree 2 that pass from block to block
// (docs/method.md §3; P §3.1, Figure 3): one head of one document, on raw pointers, for the CPU.
// Linear in the length. Nothing here allocates or starts threads.

namespace polysketch::kernels {

/// Rows are cut into blocks of `block`; the last one may be short.
///   N_i = sum over j in earlier blocks of (a_i·b_j)²·v_j,     z_i = the same sum without v_j.
template <class T>
struct ChunkHead {
  HeadRows<const T> a, b;   ///< [T, R] features of queries and keys
  HeadRows<const T> v;      ///< [T, E]
  int64_t length = 0;       ///< T
  int64_t width = 0;        ///< R
  int64_t value_width = 0;  ///< E
  int64_t block = 0;        ///< rows of a block
};

template <class T>
struct ChunkForward {
  ChunkHead<T> head;
  HeadRows<float> sum;       ///< [T, E] N, overwritten; 0 for rows that see nothing
  float* row_sum = nullptr;  ///< [T] z, likewise; not below 0
};

/// Nothing is kept from the forward pass: the states are computed again.
template <class T>
struct ChunkBackward {
  ChunkHead<T> head;
  HeadRows<const float> sum_gradient;       ///< [T, E]
  const float* row_sum_gradient = nullptr;  ///< [T]
  HeadRows<T> a_gradient,
      b_gradient;  ///< [T, R], overwritten; 0 for rows that see nothing and that nothing sees
  HeadRows<T> v_gradient;  ///< [T, E], likewise
};

/// One implementation. scratch: 64-byte aligned; its size does not depend on the length.
template <class T>
struct ChunkStateKernels {
  const char* name;
  int64_t unit;                                                    ///< `width` is a multiple of it
  size_t (*forward_scratch)(int64_t width, int64_t value_width);   ///< bytes
  size_t (*backward_scratch)(int64_t width, int64_t value_width);  ///< bytes
  void (*forward)(const ChunkForward<T>& call, void* scratch);
  void (*backward)(const ChunkBackward<T>& call, void* scratch);
};

/// The best implementation of this machine, or null if there is none for these widths: the caller
/// then uses LibTorch. Built for float and bf16. bf16 rows are multiplied as bf16 where the
/// processor can (bf16_instructions()), else as fp32; states and sums are fp32.
template <class T>
const ChunkStateKernels<T>* chunk_state_kernels(int64_t width, int64_t value_width);

}  // namespace polysketch::kernels
