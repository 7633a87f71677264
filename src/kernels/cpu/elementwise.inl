// SPDX-License-Identifier: Apache-2.0
// See row_kernels.hpp for the contracts; vector.inl for how this file is included.

template <class S>
void embedding_forward(const EmbeddingForward<S>& a, int64_t begin, int64_t end) {
  using R = Real<S>;
  const Vector<R> scale = broadcast(a.scale);
  for (int64_t row = begin; row < end; ++row) {
    const S* from = a.table + a.ids[row] * a.width;
    const R* position = a.positions == nullptr ? nullptr : a.positions + row % a.length * a.width;
    S* x = a.x + row * a.width;
    for_vectors<R>(
        a.width, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          Vector<R> value = load(from + i, lanes) * scale;
          if (position != nullptr) value += load(position + i, lanes);
          store(x + i, value, lanes);
        });
  }
}

template <class S>
void embedding_backward(const EmbeddingBackward<S>& a, int64_t begin, int64_t end) {
  using R = Real<S>;
  const Vector<R> scale = broadcast(a.scale);
  for (int64_t row = 0; row < a.rows; ++row) {
    const S* dx = a.dx + row * a.width + begin;
    R* to = a.dtable + a.ids[row] * a.width + begin;
    for_vectors<R>(
        end - begin, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          store(to + i, load(to + i, lanes) + load(dx + i, lanes) * scale, lanes);
        });
  }
}

inline void adamw_step(const AdamWStep& a, int64_t begin, int64_t end) {
  const float scale = a.gradient_scale == nullptr ? 1.0f : *a.gradient_scale;
  const auto beta1 = static_cast<float>(a.beta1), beta2 = static_cast<float>(a.beta2);
  const auto rest1 = static_cast<float>(1 - a.beta1), rest2 = static_cast<float>(1 - a.beta2);
  const auto step = static_cast<float>(a.learning_rate / a.correction1);
  const auto root = static_cast<float>(1 / __builtin_sqrt(a.correction2));
  const auto epsilon = static_cast<float>(a.epsilon);
  const auto keep = static_cast<float>(1 - a.learning_rate * a.weight_decay);
  for_vectors<float>(
      end - begin, [&](int64_t offset, auto lanes) __attribute__((always_inline)) {
        const int64_t i = begin + offset;
        const VFloat g = load(a.gradient + i, lanes) * scale;
        const VFloat m = load(a.first_moment + i, lanes) * beta1 + g * rest1;
        const VFloat v = load(a.second_moment + i, lanes) * beta2 + g * g * rest2;
        const VFloat p =
            load(a.parameter + i, lanes) * keep - step * m / (square_root(v) * root + epsilon);
        store(a.first_moment + i, m, lanes);
        store(a.second_moment + i, v, lanes);
        store(a.parameter + i, p, lanes);
        if (a.copy != nullptr) store(a.copy + i, p, lanes);
        if (a.zero_gradient) store(a.gradient + i, VFloat{}, lanes);
      });
}

POLYSKETCH_INLINE VHalfFloat load_half(const float* p) {
  VHalfFloat v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

inline void sum_of_squares(const float* x, int64_t n, double* partial, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    const float* from = x + block * kSquareBlock;
    const int64_t count =
        n - block * kSquareBlock < kSquareBlock ? n - block * kSquareBlock : kSquareBlock;
    VDouble low{}, high{};
    for_vectors<float>(
        count, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          float wide[kLanes<float>];
          store(wide, load(from + i, lanes), Full{});
          const VDouble a = __builtin_convertvector(load_half(wide), VDouble);
          const VDouble b = __builtin_convertvector(load_half(wide + kLanes<float> / 2), VDouble);
          low += a * a;
          high += b * b;
        });
    partial[block] = lane_sum(low + high);
  }
}

template <class T>
void accumulate(const T* x, float* sum, int64_t begin, int64_t end) {
  for_vectors<float>(
      end - begin, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
        store(sum + begin + i, load(sum + begin + i, lanes) + load(x + begin + i, lanes), lanes);
      });
}
