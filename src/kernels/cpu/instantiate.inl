// SPDX-License-Identifier: Apache-2.0
// The element types that every kernel is built for: included in the public namespace and in that of
// each instruction set.

#define POLYSKETCH_FOR_STREAMS(S, A)                                                         \
  template void layer_norm_forward(const LayerNormForward<S, A>&, int64_t, int64_t);         \
  template void layer_norm_backward(const LayerNormBackward<S, A>&, int64_t, int64_t);       \
  template void embedding_forward(const EmbeddingForward<S, A, int32_t>&, int64_t, int64_t); \
  template void embedding_forward(const EmbeddingForward<S, A, int64_t>&, int64_t, int64_t);
POLYSKETCH_FOR_STREAMS(float, float)
POLYSKETCH_FOR_STREAMS(float, bf16)
POLYSKETCH_FOR_STREAMS(bf16, bf16)
POLYSKETCH_FOR_STREAMS(double, double)
#undef POLYSKETCH_FOR_STREAMS
template void embedding_forward(const EmbeddingForward<bf16, float, int32_t>&, int64_t, int64_t);
template void embedding_forward(const EmbeddingForward<bf16, float, int64_t>&, int64_t, int64_t);

#define POLYSKETCH_FOR_ELEMENTS(A)                                                          \
  template void glu_forward(const GluForward<A>&, int64_t, int64_t);                        \
  template void glu_backward(const GluBackward<A>&, int64_t, int64_t);                      \
  template void rotary_forward(const RotaryForward<A>&, int64_t, int64_t);                  \
  template void rotary_backward(const RotaryBackward<A>&, int64_t, int64_t);                \
  template void copy_heads(const CopyHeads<A>&, int64_t, int64_t);                          \
  template void cross_entropy(const CrossEntropy<A, int32_t>&, int64_t, int64_t);           \
  template void cross_entropy(const CrossEntropy<A, int64_t>&, int64_t, int64_t);           \
  template void cross_entropy_loss(const CrossEntropy<A, int32_t>&, int64_t, int64_t);      \
  template void cross_entropy_loss(const CrossEntropy<A, int64_t>&, int64_t, int64_t);      \
  template void embedding_backward(const EmbeddingBackward<A, int32_t>&, int64_t, int64_t); \
  template void embedding_backward(const EmbeddingBackward<A, int64_t>&, int64_t, int64_t);
POLYSKETCH_FOR_ELEMENTS(float)
POLYSKETCH_FOR_ELEMENTS(bf16)
POLYSKETCH_FOR_ELEMENTS(double)
#undef POLYSKETCH_FOR_ELEMENTS

template void sum_of_squares(const float*, int64_t, double*, int64_t, int64_t);
template void sum_of_squares(const bf16*, int64_t, double*, int64_t, int64_t);
template void accumulate(const float*, float*, int64_t, int64_t);
template void accumulate(const bf16*, float*, int64_t, int64_t);
template void convert(const float*, bf16*, int64_t, int64_t);
template void convert(const bf16*, float*, int64_t, int64_t);
