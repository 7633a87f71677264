// SPDX-License-Identifier: Apache-2.0
// Small matrix products in registers, and what happens to a score. Included after
// attention_rows.inl.

/// sums[M][16·N] += a[M][steps] · b[steps][16·N], a and b in cells, `a_row` and `b_row` apart from
/// one row to the next.
template <class Products, int M, int N>
[[gnu::always_inline]] inline void multiply(const Cell* a, int64_t a_row, const Cell* b,
                                            int64_t b_row, int64_t steps, __m512 (&sums)[M][N]) {
  for (int64_t s = 0; s < steps; ++s, b += b_row) {
    __m512i right[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) right[n] = _mm512_loadu_si512(b + n * kLanes);
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m512i left = _mm512_set1_epi32(static_cast<int>(a[m * a_row + s]));
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] = Products::multiply_add(sums[m][n], left, right[n]);
    }
  }
}

/// The same from zero. Where products have tiles, M is their number of rows and `sums` passes
/// through memory.
template <class Products, int M, int N>
[[gnu::always_inline]] inline void product(const Cell* a, int64_t a_row, const Cell* b,
                                           int64_t b_row, int64_t steps, __m512 (&sums)[M][N]) {
  if constexpr (Products::kTiles) {
    static_assert(M == Products::kGroup);
    Products::template multiply<N, false>(a, a_row, b, b_row, steps, reinterpret_cast<float*>(sums),
                                          N * kLanes);
  } else {
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) sums[m][n] = _mm512_setzero_ps();
    }
    multiply<Products, M, N>(a, a_row, b, b_row, steps, sums);
  }
}

template <class Products, int M, int N>
void accumulate_tile(const Cell* a, int64_t a_row, const Cell* b, int64_t b_row, int64_t steps,
                     float* c, int64_t c_row) {
  if constexpr (Products::kTiles) {
    static_assert(M == Products::kGroup);
    return Products::template multiply<N, true>(a, a_row, b, b_row, steps, c, c_row);
  }
  __m512 sums[M][N];
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) sums[m][n] = load(c + m * c_row + n * kLanes);
  }
  multiply<Products, M, N>(a, a_row, b, b_row, steps, sums);
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(c + m * c_row + n * kLanes, sums[m][n]);
  }
}

/// c[M][columns] += a[M][steps] · b[steps][columns] in memory; columns a multiple of 16.
template <class Products, int M>
void accumulate(const Cell* a, int64_t a_row, const Cell* b, int64_t b_row, int64_t steps, float* c,
                int64_t c_row, int64_t columns) {
  int64_t n = 0;
  for (; n + 4 * kLanes <= columns; n += 4 * kLanes)
    accumulate_tile<Products, M, 4>(a, a_row, b + n, b_row, steps, c + n, c_row);
  switch ((columns - n) / kLanes) {
    case 3:
      return accumulate_tile<Products, M, 3>(a, a_row, b + n, b_row, steps, c + n, c_row);
    case 2:
      return accumulate_tile<Products, M, 2>(a, a_row, b + n, b_row, steps, c + n, c_row);
    case 1:
      return accumulate_tile<Products, M, 1>(a, a_row, b + n, b_row, steps, c + n, c_row);
    default:
      return;
  }
}

/// work.operator()<M>(first) for every M rows of `rows`: whole groups, and of an even rest that
/// registers can hold 4 or 2.
template <class Products, class Work>
void for_groups(int64_t rows, Work work) {
  constexpr int group = Products::kGroup;
  int64_t m = 0;
  for (; m + group <= rows; m += group) work.template operator()<group>(m);
  if constexpr (!Products::kTiles) {
    if (rows - m == 4) work.template operator()<4>(m);
    if (rows - m == 2) work.template operator()<2>(m);
  }
}

/// accumulate() for any even number of rows; with tiles a multiple of their rows.
template <class Products>
void accumulate_rows(const Cell* a, int64_t a_row, const Cell* b, int64_t b_row, int64_t steps,
                     float* c, int64_t c_row, int64_t rows, int64_t columns) {
  for_groups<Products>(rows, [&]<int M>(int64_t m) {
    accumulate<Products, M>(a + m * a_row, a_row, b, b_row, steps, c + m * c_row, c_row, columns);
  });
}

/// s^(p-1) and s^p. Degree 0: p is only known at run time.
template <int Degree>
[[gnu::always_inline]] inline void powers(__m512 s, int64_t degree, __m512& odd, __m512& even) {
  const __m512 s2 = _mm512_mul_ps(s, s);
  if constexpr (Degree == 2) {
    odd = s;
    even = s2;
  } else if constexpr (Degree == 4) {
    odd = _mm512_mul_ps(s2, s);
    even = _mm512_mul_ps(s2, s2);
  } else if constexpr (Degree == 8) {
    const __m512 s4 = _mm512_mul_ps(s2, s2);
    odd = _mm512_mul_ps(_mm512_mul_ps(s4, s2), s);
    even = _mm512_mul_ps(s4, s4);
  } else {
    odd = s;
    __m512 factor = s2;
    for (int64_t left = (degree - 2) / 2; left > 0;
         left >>= 1, factor = _mm512_mul_ps(factor, factor)) {
      if (left & 1) odd = _mm512_mul_ps(odd, factor);
    }
    even = _mm512_mul_ps(odd, s);
  }
}

/// Lanes first … last of the 16 that start at `base`.
inline __mmask16 lanes_between(int64_t first, int64_t last, int64_t base) {
  const int64_t low = std::clamp<int64_t>(first - base, 0, kLanes),
                high = std::clamp<int64_t>(last - base + 1, 0, kLanes);
  return static_cast<__mmask16>(((1U << high) - 1U) & ~((1U << low) - 1U));
}
