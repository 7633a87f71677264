// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/element.hpp"

// The arithmetic of a training step that is neither a matrix product nor attention, on raw
// pointers, for the CPU.
//
// Letters: B batch, T time, C width, H heads, D = C / H head width, G hidden width of the gated
// unit, V vocabulary; N = B·T rows. Tensors are row-major and contiguous unless strides are given;
// pointers need no alignment. No function allocates per row.
//
// A kernel takes its arguments in a struct and a range [begin, end) of rows, columns or elements:
// the caller cuts the whole range into pieces and gives them to its threads. Pieces share nothing
// that is written, except accumulators, which the caller gives one a thread. What is computed for a
// row does not depend on how the range was cut; sums into accumulators do, unless said otherwise.
//
// Element types: A activation, S residual stream; Real<T> is fp32 for fp32 and bf16, fp64 for fp64.
// Built for (S, A) in (float, float), (float, bf16), (bf16, bf16), (double, double), and for Id
// int32_t or int64_t.
// Struct arguments are deduced: layer_norm_forward(LayerNormForward<float, bf16>{.x = ..., ...},
// begin, end).

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
/// Range: rows.
template <class S, class A>
void layer_norm_forward(const LayerNormForward<S, A>& a, int64_t begin, int64_t end);

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
/// Range: rows.
template <class S, class A>
void layer_norm_backward(const LayerNormBackward<S, A>& a, int64_t begin, int64_t end);

// ---- gated linear unit

/// out = linear · gelu(gate), gelu in the tanh form.
template <class A>
struct GluForward {
  const A* in;     ///< [N, 2G]: linear | gate
  A* out;          ///< [N, G]
  int64_t hidden;  ///< G
};
/// Range: rows.
template <class A>
void glu_forward(const GluForward<A>& a, int64_t begin, int64_t end);

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
/// Range: rows.
template <class A>
void glu_backward(const GluBackward<A>& a, int64_t begin, int64_t end);

// ---- rotary embedding, heads

/// Where element (b, h, t, 0) lies: b·batch + h·head + t·time. The D numbers of a head are
/// contiguous.
struct HeadStrides {
  int64_t batch, head, time;
  /// [B, H, T, D]
  static HeadStrides heads_first(int64_t heads, int64_t length, int64_t head_width) {
    return {heads * length * head_width, length * head_width, head_width};
  }
  /// [B, T, row], heads side by side in a row
  static HeadStrides time_first(int64_t length, int64_t row, int64_t head_width) {
    return {length * row, head_width, row};
  }
};

/// Splits [B, T, 3C] into q, k, v and rotates q and k: out[i] = x[2i]·cos − x[2i+1]·sin, out[i+D/2]
/// = x[2i+1]·cos + x[2i]·sin.
template <class A>
struct RotaryForward {
  const A* qkv;  ///< [B, T, 3C]
  A* q;          ///< strides as below; q and k may lie in qkv itself, at their own places
  A* k;
  A* v = nullptr;                     ///< null: v is not copied
  HeadStrides strides;                ///< of q, k and v
  const Real<A>* cosine;              ///< [T, D/2]
  const Real<A>* sine;                ///< [T, D/2]
  int64_t length, heads, head_width;  ///< T, H, D (even, at most 512)
};
/// Range: rows b·T + t.
template <class A>
void rotary_forward(const RotaryForward<A>& a, int64_t begin, int64_t end);

/// The gradient: rotates dq, dk back and joins them with dv.
template <class A>
struct RotaryBackward {
  const A* dq;  ///< strides as below
  const A* dk;
  const A* dv = nullptr;  ///< null: dv is already in its place in dqkv
  HeadStrides strides;    ///< of dq, dk and dv
  A* dqkv;                ///< [B, T, 3C]; dq and dk may lie in it at their own places
  const Real<A>* cosine;  ///< [T, D/2]
  const Real<A>* sine;    ///< [T, D/2]
  int64_t length, heads, head_width;
};
/// Range: rows b·T + t.
template <class A>
void rotary_backward(const RotaryBackward<A>& a, int64_t begin, int64_t end);

/// Copies heads between layouts, e.g. [B, H, T, D] to [B, T, C] (heads_first to time_first) or
/// back.
template <class A>
struct CopyHeads {
  const A* from;
  HeadStrides from_strides;
  A* to;
  HeadStrides to_strides;
  int64_t length, heads, head_width;
};
/// Range: rows b·T + t.
template <class A>
void copy_heads(const CopyHeads<A>& a, int64_t begin, int64_t end);

// ---- cross-entropy

/// loss[r] = log Σ_j exp(z_j) − z_target, z = logits + bias. The logits are overwritten by
/// (softmax(z) − onehot)·scale. A row with a target outside [0, V) (−1 by convention) does not
/// count: loss 0, gradient 0.
template <class A, class Id>
struct CrossEntropy {
  A* logits;                      ///< [N, V], rows row_stride apart
  int64_t row_stride;             ///< >= V
  const Real<A>* bias = nullptr;  ///< [V], added to the logits; null: none
  const Id* targets;              ///< [N]
  Real<A>* loss;                  ///< [N], not scaled
  Real<A>* dbias = nullptr;       ///< [V] this thread's accumulator of the gradient, before it is
                                  ///< rounded to A; null: not wanted
  Real<A> scale = 1;              ///< of the gradient: 1 / (number of targets of the whole step)
  int64_t vocabulary;             ///< V
};
/// Range: rows.
template <class A, class Id>
void cross_entropy(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end);
/// The loss alone (evaluation): logits are read only; dbias and scale are not used.
template <class A, class Id>
void cross_entropy_loss(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end);

// ---- embedding

/// x[r] = table[ids[r]] + positions[r mod T]. Built for table types W = A of the pairs above and
/// for fp32 tables.
template <class S, class W, class Id>
struct EmbeddingForward {
  const Id* ids;             ///< [N], all in [0, V)
  const W* table;            ///< [V, C]
  const Real<S>* positions;  ///< [T, C]; null: none
  S* x;                      ///< [N, C]
  int64_t length;            ///< T
  int64_t width;             ///< C
  Real<S> scale = 1;
};
/// Range: rows.
template <class S, class W, class Id>
void embedding_forward(const EmbeddingForward<S, W, Id>& a, int64_t begin, int64_t end);

/// dtable[ids[r]] += scale · dx[r] for all rows, in order: the result does not depend on how the
/// columns were cut.
template <class S, class Id>
struct EmbeddingBackward {
  const Id* ids;    ///< [N]
  const S* dx;      ///< [N, C]
  Real<S>* dtable;  ///< [V, C]
  int64_t rows;     ///< N
  int64_t width;    ///< C
  Real<S> scale = 1;
};
/// Range: **columns** of the table.
template <class S, class Id>
void embedding_backward(const EmbeddingBackward<S, Id>& a, int64_t begin, int64_t end);

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
/// Range: elements. The result does not depend on how the range was cut.
void adamw_step(const AdamWStep& a, int64_t begin, int64_t end);

/// Elements that one partial sum of squares covers.
inline constexpr int64_t kSquareBlock = 16384;

/// partial[i] = Σ x[j]² over block i = [i·kSquareBlock, …) of x [n], summed in fp64. Adding the
/// partials in order gives a norm that does not depend on the number of threads. Range: blocks, out
/// of ceil(n / kSquareBlock). T: float, bf16.
template <class T>
void sum_of_squares(const T* x, int64_t n, double* partial, int64_t begin, int64_t end);

// ---- plain passes

/// sum[i] += x[i]. T: float, bf16. Range: elements.
template <class T>
void accumulate(const T* x, float* sum, int64_t begin, int64_t end);

/// to[i] = from[i], rounded to the nearest even. (float, bf16), (bf16, float). Range: elements.
template <class From, class To>
void convert(const From* from, To* to, int64_t begin, int64_t end);

}  // namespace polysketch::kernels
