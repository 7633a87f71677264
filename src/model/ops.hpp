// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <utility>

namespace polysketch::ops {

// The arithmetic of the model between its matrix products, forward and backward written out. Each
// function has two implementations with one contract: fused kernels on the CPU (src/kernels/cpu),
// and LibTorch operations for other devices, also the reference that tests hold the kernels to
// (POLYSKETCH_OPS=rows:aten). "wide" is the type of sums, norms and the residual stream: fp32, or
// fp64 in tests; "compute" is the type of the matrix products: bf16, fp32 or fp64. N = B·T rows.

constexpr double kLayerNormEpsilon = 1e-5;

/// Layer normalisation with what backward needs.
struct Normalized {
  at::Tensor y;           ///< [N, C] compute
  at::Tensor mean, rstd;  ///< [N] wide
};

/// x: [N, C] wide; gain, bias: [C] wide.
Normalized layer_norm(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& bias,
                      at::ScalarType compute);

/// sum = x + delta (delta: [N, C] compute), then layer_norm(sum). in_place: the sum is written over
/// x. Returns {sum, normalized}.
std::pair<at::Tensor, Normalized> add_layer_norm(const at::Tensor& x, const at::Tensor& delta,
                                                 const at::Tensor& gain, const at::Tensor& bias,
                                                 bool in_place);

/// d_residual [N, C] wide += gradient with respect to the norm's input x; d_gain, d_bias [C] wide
/// +=. dy: [N, C] compute. Returns d_residual once more as compute, for the next matrix product.
at::Tensor layer_norm_backward(const at::Tensor& dy, const at::Tensor& x,
                               const Normalized& normalized, const at::Tensor& gain,
                               at::Tensor& d_residual, at::Tensor d_gain, at::Tensor d_bias);

/// [N, 2G] (linear | gate) -> [N, G]: linear · gelu(gate), tanh form.
at::Tensor glu(const at::Tensor& pre);
/// From d_out [N, G]: overwrites `pre` [N, 2G] with its gradient and d_out with the forward result
/// (the input of the next weights' gradient).
void glu_backward(at::Tensor& pre, at::Tensor& d_out);

/// Rotary tables cos, sin [T, D/2] wide: angle t · 10000^(-2i/D).
struct RotaryTable {
  at::Tensor cos, sin;
};
RotaryTable rotary_table(int64_t length, int64_t head_width, const at::TensorOptions& wide);

/// qkv [B·T, 3C] -> q, k, v [B, H, T, D] contiguous, q and k rotated: interleaved pairs in, halves
/// out (docs/method.md §1). The table may hold more rows than T.
std::array<at::Tensor, 3> split_rotate(const at::Tensor& qkv, int64_t batch, int64_t heads,
                                       const RotaryTable& table);
/// The inverse for gradients: dq, dk, dv [B, H, T, D] -> [B·T, 3C].
at::Tensor merge_rotate_backward(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                                 const RotaryTable& table);

/// [B, H, T, D] -> [B·T, C] and back.
at::Tensor merge_heads(const at::Tensor& o);
at::Tensor split_heads(const at::Tensor& o, int64_t batch, int64_t heads);

/// Sinusoidal table [T, C] wide: [t, 2i] = sin(t · 10000^(-i/(C/2))), [t, 2i+1] = cos(same).
at::Tensor sinusoidal_table(int64_t length, int64_t width, const at::TensorOptions& wide);

/// scale · E[ids] + positions -> [N, C] wide. embedding: [V, C] wide; ids: [N] int64; positions:
/// [T, C] wide, repeated for every sequence.
at::Tensor embed(const at::Tensor& embedding, const at::Tensor& ids, const at::Tensor& positions,
                 double scale);
/// d_embedding [V, C] wide += scale · rows of dx [N, C] wide; on the CPU the order of additions
/// does not depend on threads.
void embed_backward(const at::Tensor& dx, const at::Tensor& ids, at::Tensor d_embedding,
                    double scale);

/// accumulator wide += value (compute or wide), same shape, both contiguous.
void accumulate(at::Tensor accumulator, const at::Tensor& value);

/// x wide -> compute (x itself if the types agree).
at::Tensor to_compute(const at::Tensor& x, at::ScalarType compute);

/// Names the draws of dropout. They are a pure function of (seed, step, global sequence number,
/// site, position, channel), so they depend neither on the rank nor on the micro-batch, and
/// backward and recomputation draw the same again.
struct DropoutKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t first_sequence = 0;  ///< global number of the first of the B sequences
};
/// y [B·T, C] compute *= keep / (1 − rate), in place. site: which of the model's dropouts.
void dropout(at::Tensor& y, double rate, const DropoutKey& key, int64_t batch, int64_t site);

}  // namespace polysketch::ops
