// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/cpu/scratch.hpp"
#include "kernels/instruction_set.hpp"
#include "kernels/kernels.hpp"

namespace polysketch::kernels {

void* thread_scratch(int64_t bytes) {
  struct alignas(64) Line {
    char bytes[64];
  };
  thread_local std::vector<Line> memory;
  const auto lines = static_cast<size_t>((bytes + 63) / 64);
  if (memory.size() < lines) memory.resize(lines);
  return memory.data();
}

#define POLYSKETCH_ISA_NAMESPACE baseline
#include "kernels/cpu/declare.inl"
#undef POLYSKETCH_ISA_NAMESPACE
#ifdef __x86_64__
#define POLYSKETCH_ISA_NAMESPACE avx2
#include "kernels/cpu/declare.inl"
#undef POLYSKETCH_ISA_NAMESPACE
#define POLYSKETCH_ISA_NAMESPACE avx512
#include "kernels/cpu/declare.inl"
#undef POLYSKETCH_ISA_NAMESPACE
#define POLYSKETCH_ISA_NAMESPACE avx512_bf16
#include "kernels/cpu/declare.inl"
#undef POLYSKETCH_ISA_NAMESPACE
#define POLYSKETCH_DISPATCH(call)                                    \
  switch (instruction_set()) {                                       \
    case InstructionSet::amx:                                        \
    case InstructionSet::avx512:                                     \
      return bf16_instructions() ? avx512_bf16::call : avx512::call; \
    case InstructionSet::avx2:                                       \
      return avx2::call;                                             \
    default:                                                         \
      return baseline::call;                                         \
  }
#else
#define POLYSKETCH_DISPATCH(call) return baseline::call;
#endif

template <class S, class A>
void layer_norm_forward(const LayerNormForward<S, A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(layer_norm_forward(a, begin, end))
}
template <class S, class A>
void layer_norm_backward(const LayerNormBackward<S, A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(layer_norm_backward(a, begin, end))
}
template <class A>
void glu_forward(const GluForward<A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(glu_forward(a, begin, end))
}
template <class A>
void glu_backward(const GluBackward<A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(glu_backward(a, begin, end))
}
template <class A>
void rotary_forward(const RotaryForward<A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(rotary_forward(a, begin, end))
}
template <class A>
void rotary_backward(const RotaryBackward<A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(rotary_backward(a, begin, end))
}
template <class A>
void copy_heads(const CopyHeads<A>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(copy_heads(a, begin, end))
}
template <class A, class Id>
void cross_entropy(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(cross_entropy(a, begin, end))
}
template <class A, class Id>
void cross_entropy_loss(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(cross_entropy_loss(a, begin, end))
}
template <class S, class W, class Id>
void embedding_forward(const EmbeddingForward<S, W, Id>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(embedding_forward(a, begin, end))
}
template <class S, class Id>
void embedding_backward(const EmbeddingBackward<S, Id>& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(embedding_backward(a, begin, end))
}
void adamw_step(const AdamWStep& a, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(adamw_step(a, begin, end))
}
template <class T>
void sum_of_squares(const T* x, int64_t n, double* partial, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(sum_of_squares(x, n, partial, begin, end))
}
template <class T>
void accumulate(const T* x, float* sum, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(accumulate(x, sum, begin, end))
}
template <class From, class To>
void convert(const From* from, To* to, int64_t begin, int64_t end) {
  POLYSKETCH_DISPATCH(convert(from, to, begin, end))
}

#include "kernels/cpu/instantiate.inl"

}  // namespace polysketch::kernels
