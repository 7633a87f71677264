// SPDX-License-Identifier: Apache-2.0
// See row_kernels.hpp for the contracts; vector.inl for how this file is included.

// The even and odd numbers of two vectors; two vectors interleaved, first and second half.
#if POLYSKETCH_VECTOR_BYTES == 64
#define POLYSKETCH_EVEN(a, b) \
  __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define POLYSKETCH_ODD(a, b) \
  __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define POLYSKETCH_LOW(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define POLYSKETCH_HIGH(a, b) \
  __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif POLYSKETCH_VECTOR_BYTES == 32
#define POLYSKETCH_EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define POLYSKETCH_ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define POLYSKETCH_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define POLYSKETCH_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define POLYSKETCH_EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define POLYSKETCH_ODD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7)
#define POLYSKETCH_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define POLYSKETCH_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

struct Pair {
  VFloat even, odd;
};

/// The pairs (p[0], p[1]), (p[2], p[3]) … taken apart.
POLYSKETCH_INLINE Pair load_pairs(const float* p) {
  const VFloat a = load(p, Full{}), b = load(p + kLanes<float>, Full{});
  return {POLYSKETCH_EVEN(a, b), POLYSKETCH_ODD(a, b)};
}
POLYSKETCH_INLINE Pair load_pairs(const bf16* p) {
  VUint u;  // little-endian: the even element is the lower half
  __builtin_memcpy(&u, p, sizeof u);
  return {bits<VFloat>(u << 16), bits<VFloat>(u & 0xffff0000u)};
}
POLYSKETCH_INLINE void store_pairs(float* p, Pair v) {
  store(p, POLYSKETCH_LOW(v.even, v.odd), Full{});
  store(p + kLanes<float>, POLYSKETCH_HIGH(v.even, v.odd), Full{});
}
POLYSKETCH_INLINE void store_pairs(bf16* p, Pair v) {
  const VUint u = round_to_bf16(v.even) | (round_to_bf16(v.odd) << 16);
  __builtin_memcpy(p, &u, sizeof u);
}

POLYSKETCH_INLINE float to_real(float x) { return x; }
POLYSKETCH_INLINE double to_real(double x) { return x; }
POLYSKETCH_INLINE float to_real(bf16 x) { return to_float(x); }
POLYSKETCH_INLINE void from_real(float& to, float x) { to = x; }
POLYSKETCH_INLINE void from_real(double& to, double x) { to = x; }
POLYSKETCH_INLINE void from_real(bf16& to, float x) { to = to_bf16(x); }

/// One head: D numbers, interleaved pairs in, halves out.
template <class A>
POLYSKETCH_INLINE void rotate(const A* x, A* out, const Real<A>* cosine, const Real<A>* sine,
                              int64_t half) {
  int64_t i = 0;
  if constexpr (!std::is_same_v<A, double>) {
    for (; i + kLanes<float> <= half; i += kLanes<float>) {
      const VFloat c = load(cosine + i, Full{}), s = load(sine + i, Full{});
      const Pair pair = load_pairs(x + 2 * i);
      store(out + i, pair.even * c - pair.odd * s, Full{});
      store(out + half + i, pair.odd * c + pair.even * s, Full{});
    }
  }
  for (; i < half; ++i) {
    const Real<A> even = to_real(x[2 * i]), odd = to_real(x[2 * i + 1]);
    from_real(out[i], even * cosine[i] - odd * sine[i]);
    from_real(out[half + i], odd * cosine[i] + even * sine[i]);
  }
}

/// The transpose, which is the inverse: halves in, interleaved pairs out.
template <class A>
POLYSKETCH_INLINE void rotate_back(const A* x, A* out, const Real<A>* cosine, const Real<A>* sine,
                                   int64_t half) {
  int64_t i = 0;
  if constexpr (!std::is_same_v<A, double>) {
    for (; i + kLanes<float> <= half; i += kLanes<float>) {
      const VFloat c = load(cosine + i, Full{}), s = load(sine + i, Full{});
      const VFloat first = load(x + i, Full{}), second = load(x + half + i, Full{});
      store_pairs(out + 2 * i, {first * c + second * s, second * c - first * s});
    }
  }
  for (; i < half; ++i) {
    const Real<A> first = to_real(x[i]), second = to_real(x[half + i]);
    from_real(out[2 * i], first * cosine[i] + second * sine[i]);
    from_real(out[2 * i + 1], second * cosine[i] - first * sine[i]);
  }
}

/// body(row, head), head by head within a few rows: rows of [B, H, T, D] that follow each other are
/// then written one after the other, and there are never more streams than the memory can follow.
template <class Body>
POLYSKETCH_INLINE void for_heads(int64_t begin, int64_t end, int64_t heads, Body body) {
  constexpr int64_t kTile = 16;
  for (int64_t tile = begin; tile < end; tile += kTile) {
    const int64_t tile_end = tile + kTile < end ? tile + kTile : end;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t row = tile; row < tile_end; ++row) body(row, h);
    }
  }
}

/// Where row b·T + t of a head begins in [B, H, T, D].
POLYSKETCH_INLINE int64_t place(int64_t row, int64_t head, int64_t length, int64_t heads,
                                int64_t width) {
  return ((row / length * heads + head) * length + row % length) * width;
}

template <class A>
void rotary_forward(const RotaryForward<A>& a, int64_t begin, int64_t end) {
  const int64_t width = a.head_width, half = width / 2, model_width = a.heads * width;
  for_heads(
      begin, end, a.heads, [&](int64_t row, int64_t h) __attribute__((always_inline)) {
        const Real<A>*cosine = a.cosine + row % a.length * half,
              *sine = a.sine + row % a.length * half;
        const A* from = a.qkv + row * 3 * model_width + h * width;
        const int64_t to = place(row, h, a.length, a.heads, width);
        rotate(from, a.q + to, cosine, sine, half);
        rotate(from + model_width, a.k + to, cosine, sine, half);
        __builtin_memcpy(a.v + to, from + 2 * model_width, static_cast<size_t>(width) * sizeof(A));
      });
}

template <class A>
void rotary_backward(const RotaryBackward<A>& a, int64_t begin, int64_t end) {
  const int64_t width = a.head_width, half = width / 2, model_width = a.heads * width;
  for_heads(
      begin, end, a.heads, [&](int64_t row, int64_t h) __attribute__((always_inline)) {
        const Real<A>*cosine = a.cosine + row % a.length * half,
              *sine = a.sine + row % a.length * half;
        A* to = a.dqkv + row * 3 * model_width + h * width;
        const int64_t from = place(row, h, a.length, a.heads, width);
        rotate_back(a.dq + from, to, cosine, sine, half);
        rotate_back(a.dk + from, to + model_width, cosine, sine, half);
        __builtin_memcpy(to + 2 * model_width, a.dv + from, static_cast<size_t>(width) * sizeof(A));
      });
}
