// SPDX-License-Identifier: Apache-2.0
// The kernels of row_kernels.hpp for one instruction set, and their table. Included inside an
// unnamed namespace, behind POLYSKETCH_TARGET_BEGIN, with POLYSKETCH_VECTOR_BYTES defined.

namespace rows {

// The order matters.
// clang-format off
#include "kernels/cpu/vector.inl"
#include "kernels/cpu/layer_norm.inl"
#include "kernels/cpu/glu.inl"
#include "kernels/cpu/rotary.inl"
#include "kernels/cpu/cross_entropy.inl"
#include "kernels/cpu/elementwise.inl"
// clang-format on

template <class S, class A>
constexpr StreamKernels<S, A> kStream{layer_norm_forward<S, A>, layer_norm_backward<S, A>};
template <class A>
constexpr ActivationKernels<A> kActivation{glu_forward<A>,    glu_backward<A>,
                                           rotary_forward<A>, rotary_backward<A>,
                                           cross_entropy<A>,  cross_entropy_loss<A>};
template <class S>
constexpr EmbeddingKernels<S> kEmbedding{embedding_forward<S>, embedding_backward<S>};

}  // namespace rows

constexpr RowKernels kRows{rows::kStream<float, float>, rows::kStream<float, bf16>,
                           rows::kStream<bf16, bf16>,   rows::kStream<double, double>,
                           rows::kActivation<float>,    rows::kActivation<bf16>,
                           rows::kActivation<double>,   rows::kEmbedding<float>,
                           rows::kEmbedding<double>,    {rows::accumulate<float>},
                           {rows::accumulate<bf16>},    {rows::adamw_step, rows::sum_of_squares}};
