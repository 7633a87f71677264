// SPDX-License-Identifier: Apache-2.0
// The kernels of a head for AVX-512, and their table for rows of T and products in registers or
// tiles. Included inside an unnamed namespace, behind POLYSKETCH_TARGET_BEGIN.

namespace heads {

// The order matters.
// clang-format off
#include "kernels/cpu/attention_rows.inl"
#include "kernels/cpu/attention_products.inl"
#include "kernels/cpu/polynomial_forward.inl"
#include "kernels/cpu/polynomial_backward.inl"
#include "kernels/cpu/chunk_state.inl"
#include "kernels/cpu/chunk_state_passes.inl"
#include "kernels/cpu/sketch_level.inl"
#include "kernels/cpu/sketch_passes.inl"
// clang-format on

/// A function as it is.
template <auto function>
struct Plain {
  static constexpr auto call = function;
};

/// Widths are multiples of `unit`. Call<function>::call is what is called in place of a function
/// that takes products.
template <class Products, class T, int64_t unit, template <auto> class Call>
struct Table {
  static constexpr PolynomialKernels<T> polynomial{Products::kName,
                                                   unit,
                                                   forward_bytes<Products>,
                                                   backward_bytes<Products>,
                                                   Call<forward_head<Products, T>>::call,
                                                   Call<backward_head<Products, T>>::call};
  static constexpr ChunkStateKernels<T> chunk_states{Products::kName,
                                                     unit,
                                                     chunk_forward_bytes<Products>,
                                                     chunk_backward_bytes<Products>,
                                                     Call<chunk_forward<Products, T>>::call,
                                                     Call<chunk_backward<Products, T>>::call};
  static constexpr SketchKernels<T> sketch{Products::kName,
                                           unit,
                                           sketch_packed_bytes<Products>,
                                           sketch_pack<Products>,
                                           sketch_forward_bytes<Products>,
                                           sketch_backward_bytes<Products>,
                                           Call<sketch_forward<Products, T>>::call,
                                           Call<sketch_backward<Products, T>>::call};
  static constexpr HeadKernels<T> kernels{&polynomial, &chunk_states, &sketch};
};

}  // namespace heads
