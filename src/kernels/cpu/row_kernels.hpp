// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/cpu/element.hpp"

// The arithmetic of a training step on rows, columns and elements: norms, gated unit, rotation,
// loss, embedding, optimiser. On raw pointers, for the CPU. Matrix products are LibTorch's; what
// happens in a head is in polynomial_head.hpp, chunk_states_head.hpp and sketch_rows.hpp.
//
// Letters: B batch, T time, C width, H heads, D = C / H head width, G hidden width of the gated
// unit, V vocabulary; N = B·T rows. Tensors are row-major and contiguous unless strides are given;
// pointers need no alignment. No function allocates per row.
//
// A kernel takes its arguments in a struct and a range [begin, end) of rows, columns or elements:
// the caller cuts the whole range into slices and gives them to its threads. Slices share nothing
// that is written, except accumulators, which the caller gives one a thread. What is computed for a
// row does not depend on how the range was cut; sums into accumulators do, unless said otherwise.
//
// Element types: A activation, S residual stream; Real<T> is fp32 for fp32 and bf16, fp64 for fp64.
// Built for the types that RowKernels lists. Struct arguments are deduced:
// layer_norm_forward(LayerNormForward<float, bf16>{.x = ..., ...}, begin, end).

namespace polysketch::kernels {

// ---- layer normalisation

/// sum = x + delta (or x, if delta is null), y = (sum − mean)·rstd·gain + bias with the biased
/// variance of the stored, rounded sum.
template <class S, class A>
struct LayerNormForward {
  const S* x;                ///< [N, C] residual stream
  const A* delta = nullptr;  ///< [N, C] added to the stream first; null: plain layer norm
  S* sum = nullptr;          ///< [N, C] receives x + delta; may be x; not used if delta is null
  const Real<S>* gain;       ///< [C]
  const Real<S>* bias;       ///< [C]
  A* y;                      ///< [N, C]
  Real<S>* mean = nullptr;   ///< [N] for the backward pass; may be null
  Real<S>* rstd = nullptr;   ///< [N] likewise
  int64_t width;             ///< C
  double epsilon = 1e-5;
};

/// dx = dresidual + gradient of the norm; dgain, dbias += the rows' shares.
template <class S, class A>
struct LayerNormBackward {
  const A* dy;          ///< [N, C]
  const S* x;           ///< [N, C] what was normalised (`sum` where a delta was added)
  const Real<S>* gain;  ///< [C]
  const Real<S>* mean;  ///< [N]
  const Real<S>* rstd;  ///< [N]
  /// [N, C] gradient that reached the stream past the norm; null: none
  const S* dresidual = nullptr;
  S* dx;                 ///< [N, C]; may be dresidual
  A* dx_copy = nullptr;  ///< [N, C] dx once more as an activation, for the next matrix product;
                         ///< null: not wanted
  Real<S>* dgain;        ///< [C] this thread's accumulator
  Real<S>* dbias;        ///< [C] this thread's accumulator
  int64_t width;         ///< C
};

// ---- gated linear unit

/// out = linear · gelu(gate), gelu in the tanh form.
template <class A>
struct GluForward {
  const A* in;     ///< [N, 2G]: linear | gate
  A* out;          ///< [N, G]
  int64_t hidden;  ///< G
};

/// Recomputes gelu from the pre-activations, so that they are all a block must keep.
template <class A>
struct GluBackward {
  const A* in;    ///< [N, 2G] as in the forward pass
  const A* dout;  ///< [N, G]
  A* din;         ///< [N, 2G]; may be in
  /// [N, G] the forward result once more, for the gradient of the next weights; may be dout; null:
  /// not wanted
  A* out = nullptr;
  int64_t hidden;  ///< G
};

// ---- rotary embedding

/// Splits [B, T, 3C] into q, k, v and rotates q and k: out[i] = x[2i]·cos − x[2i+1]·sin, out[i+D/2]
/// = x[2i+1]·cos + x[2i]·sin.
template <class A>
struct RotaryForward {
  const A* qkv;                       ///< [B, T, 3C]
  A *q, *k, *v;                       ///< [B, H, T, D]
  const Real<A>* cosine;              ///< [T, D/2]
  const Real<A>* sine;                ///< [T, D/2]
  int64_t length, heads, head_width;  ///< T, H, D (even)
};

/// The gradient: rotates dq, dk back and joins them with dv.
template <class A>
struct RotaryBackward {
  const A *dq, *dk, *dv;  ///< [B, H, T, D]
  A* dqkv;                ///< [B, T, 3C]
  const Real<A>* cosine;  ///< [T, D/2]
  const Real<A>* sine;    ///< [T, D/2]
  int64_t length, heads, head_width;
};

// ---- cross-entropy

/// loss[r] = log Σ_j exp(z_j) − z_target, z = logits + bias. The logits are overwritten by
/// (softmax(z) − onehot)·scale. A row with a target outside [0, V) (−1 by convention) does not
/// count: loss 0, gradient 0.
template <class A>
struct CrossEntropy {
  A* logits;                      ///< [N, V], rows row_stride apart
  int64_t row_stride;             ///< >= V
  const Real<A>* bias = nullptr;  ///< [V], added to the logits; null: none
  const int64_t* targets;         ///< [N]
  Real<A>* loss;                  ///< [N], not scaled
  Real<A>* dbias = nullptr;       ///< [V] this thread's accumulator of the gradient, before it is
                                  ///< rounded to A; null: not wanted
  Real<A> scale = 1;              ///< of the gradient: 1 / (number of targets of the whole step)
  int64_t vocabulary;             ///< V
};

// ---- embedding

/// x[r] = scale · table[ids[r]] + positions[r mod T].
template <class S>
struct EmbeddingForward {
  const int64_t* ids;        ///< [N], all in [0, V)
  const S* table;            ///< [V, C]
  const Real<S>* positions;  ///< [T, C]; null: none
  S* x;                      ///< [N, C]
  int64_t length;            ///< T
  int64_t width;             ///< C
  Real<S> scale = 1;
};

/// dtable[ids[r]] += scale · dx[r] for all rows, in order: the result does not depend on how the
/// columns were cut.
template <class S>
struct EmbeddingBackward {
  const int64_t* ids;  ///< [N]
  const S* dx;         ///< [N, C]
  Real<S>* dtable;     ///< [V, C]
  int64_t rows;        ///< N
  int64_t width;       ///< C
  Real<S> scale = 1;
};

// ---- optimiser

/// AdamW with decoupled decay, bias-corrected moments, epsilon outside the root:
/// m = β₁m + (1−β₁)g', v = β₂v + (1−β₂)g'², g' = g·*gradient_scale; p −= lr·(m/c₁ / (√(v/c₂) + ε) +
/// decay·p).
struct AdamWStep {
  float* parameter;
  float* first_moment;
  float* second_moment;
  float* gradient;
  bf16* copy = nullptr;                   ///< receives the new parameter, rounded; null: not wanted
  const float* gradient_scale = nullptr;  ///< clip factor, read when the kernel runs; null: 1
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  double correction1, correction2;  ///< c₁ = 1 − β₁^step, c₂ = 1 − β₂^step, step from 1
  bool zero_gradient = false;  ///< leave zeros in the gradient, ready for the next accumulation
};

/// Elements that one partial sum of squares covers.
inline constexpr int64_t kSquareBlock = 16384;

// ---- the table of an instruction set

template <class S, class A>
struct StreamKernels {
  void (*layer_norm_forward)(const LayerNormForward<S, A>&, int64_t, int64_t);
  void (*layer_norm_backward)(const LayerNormBackward<S, A>&, int64_t, int64_t);
};
template <class A>
struct ActivationKernels {
  void (*glu_forward)(const GluForward<A>&, int64_t, int64_t);
  void (*glu_backward)(const GluBackward<A>&, int64_t, int64_t);
  void (*rotary_forward)(const RotaryForward<A>&, int64_t, int64_t);
  void (*rotary_backward)(const RotaryBackward<A>&, int64_t, int64_t);
  void (*cross_entropy)(const CrossEntropy<A>&, int64_t, int64_t);
  void (*cross_entropy_loss)(const CrossEntropy<A>&, int64_t, int64_t);
};
template <class S>
struct EmbeddingKernels {
  void (*embedding_forward)(const EmbeddingForward<S>&, int64_t, int64_t);
  void (*embedding_backward)(const EmbeddingBackward<S>&, int64_t, int64_t);
};
template <class T>
struct AccumulateKernel {
  void (*accumulate)(const T*, float*, int64_t, int64_t);
};
struct OptimizerKernels {
  void (*adamw_step)(const AdamWStep&, int64_t, int64_t);
  void (*sum_of_squares)(const float*, int64_t, double*, int64_t, int64_t);
};

struct RowKernels : StreamKernels<float, float>,
                    StreamKernels<float, bf16>,
                    StreamKernels<bf16, bf16>,
                    StreamKernels<double, double>,
                    ActivationKernels<float>,
                    ActivationKernels<bf16>,
                    ActivationKernels<double>,
                    EmbeddingKernels<float>,
                    EmbeddingKernels<double>,
                    AccumulateKernel<float>,
                    AccumulateKernel<bf16>,
                    OptimizerKernels {};

/// Those of the instruction set in use.
const RowKernels& row_kernels();

// ---- the kernels

/// Range: rows, also of the next five.
template <class S, class A>
void layer_norm_forward(const LayerNormForward<S, A>& a, int64_t begin, int64_t end) {
  row_kernels().StreamKernels<S, A>::layer_norm_forward(a, begin, end);
}
template <class S, class A>
void layer_norm_backward(const LayerNormBackward<S, A>& a, int64_t begin, int64_t end) {
  row_kernels().StreamKernels<S, A>::layer_norm_backward(a, begin, end);
}
template <class A>
void glu_forward(const GluForward<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::glu_forward(a, begin, end);
}
template <class A>
void glu_backward(const GluBackward<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::glu_backward(a, begin, end);
}
template <class A>
void cross_entropy(const CrossEntropy<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::cross_entropy(a, begin, end);
}
/// The loss alone (evaluation): logits are only read; dbias and scale are not used.
template <class A>
void cross_entropy_loss(const CrossEntropy<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::cross_entropy_loss(a, begin, end);
}

/// Range: rows b·T + t.
template <class A>
void rotary_forward(const RotaryForward<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::rotary_forward(a, begin, end);
}
template <class A>
void rotary_backward(const RotaryBackward<A>& a, int64_t begin, int64_t end) {
  row_kernels().ActivationKernels<A>::rotary_backward(a, begin, end);
}

/// Range: rows.
template <class S>
void embedding_forward(const EmbeddingForward<S>& a, int64_t begin, int64_t end) {
  row_kernels().EmbeddingKernels<S>::embedding_forward(a, begin, end);
}
/// Range: **columns** of the table.
template <class S>
void embedding_backward(const EmbeddingBackward<S>& a, int64_t begin, int64_t end) {
  row_kernels().EmbeddingKernels<S>::embedding_backward(a, begin, end);
}

/// Range: elements. The result does not depend on how the range was cut.
inline void adamw_step(const AdamWStep& a, int64_t begin, int64_t end) {
  row_kernels().adamw_step(a, begin, end);
}
/// partial[i] = Σ x[j]² over block i = [i·kSquareBlock, …) of x [n], summed in fp64. Adding the
/// partials in order gives a norm that does not depend on the number of threads. Range: blocks, out
/// of ceil(n / kSquareBlock).
inline void sum_of_squares(const float* x, int64_t n, double* partial, int64_t begin, int64_t end) {
  row_kernels().sum_of_squares(x, n, partial, begin, end);
}
/// sum[i] += x[i]. Range: elements.
template <class T>
void accumulate(const T* x, float* sum, int64_t begin, int64_t end) {
  row_kernels().AccumulateKernel<T>::accumulate(x, sum, begin, end);
}

}  // namespace polysketch::kernels
