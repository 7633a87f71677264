// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set, defined in kernels_<set>.cpp. Included inside namespace
// polysketch::kernels.

namespace POLYSKETCH_ISA_NAMESPACE {
template <class S, class A>
void layer_norm_forward(const LayerNormForward<S, A>& a, int64_t begin, int64_t end);
template <class S, class A>
void layer_norm_backward(const LayerNormBackward<S, A>& a, int64_t begin, int64_t end);
template <class A>
void glu_forward(const GluForward<A>& a, int64_t begin, int64_t end);
template <class A>
void glu_backward(const GluBackward<A>& a, int64_t begin, int64_t end);
template <class A>
void rotary_forward(const RotaryForward<A>& a, int64_t begin, int64_t end);
template <class A>
void rotary_backward(const RotaryBackward<A>& a, int64_t begin, int64_t end);
template <class A>
void copy_heads(const CopyHeads<A>& a, int64_t begin, int64_t end);
template <class A, class Id>
void cross_entropy(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end);
template <class A, class Id>
void cross_entropy_loss(const CrossEntropy<A, Id>& a, int64_t begin, int64_t end);
template <class S, class W, class Id>
void embedding_forward(const EmbeddingForward<S, W, Id>& a, int64_t begin, int64_t end);
template <class S, class Id>
void embedding_backward(const EmbeddingBackward<S, Id>& a, int64_t begin, int64_t end);
void adamw_step(const AdamWStep& a, int64_t begin, int64_t end);
template <class T>
void sum_of_squares(const T* x, int64_t n, double* partial, int64_t begin, int64_t end);
template <class T>
void accumulate(const T* x, float* sum, int64_t begin, int64_t end);
template <class From, class To>
void convert(const From* from, To* to, int64_t begin, int64_t end);
}  // namespace POLYSKETCH_ISA_NAMESPACE
