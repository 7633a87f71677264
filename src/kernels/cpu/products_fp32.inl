// SPDX-License-Identifier: Apache-2.0
// Products of fp32 numbers. Included after attention_rows.inl.

struct Fp32Products {
  static constexpr const char* kName = "avx512";
  static constexpr int kUnit = 1;
  static constexpr bool kTiles = false;
  static constexpr int kGroup = 6;
  static constexpr int64_t kStep = 1;
  [[gnu::always_inline]] static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  /// 16 numbers that follow each other along the summed axis.
  static void store_along(Cell* p, __m512 x) { _mm512_storeu_ps(p, x); }
  /// The number that a product sees.
  static __m512 rounded(__m512 x) { return x; }
  /// Numbers of kUnit rows that are summed over.
  static __m512i across(__m512 x, __m512) { return _mm512_castps_si512(x); }
};
