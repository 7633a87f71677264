// SPDX-License-Identifier: Apache-2.0
// Products of bf16 numbers, two to a cell, summed in fp32. Included after attention_rows.inl.

struct Bf16Products {
  static constexpr const char* kName = "avx512_bf16";
  static constexpr int kUnit = 2;
  static constexpr bool kTiles = false;
  static constexpr int kGroup = 6;
  static constexpr int64_t kStep = 1;
  [[gnu::always_inline]] static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  /// 16 numbers that follow each other along the summed axis.
  static void store_along(Cell* p, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
  /// The number that a product sees.
  static __m512 rounded(__m512 x) {
    const __m256i half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  /// Numbers of kUnit rows that are summed over.
  [[gnu::always_inline]] static __m512i across(__m512 even, __m512 odd) {
    alignas(64) static constexpr Cell kInterleaved[kLanes] = {
        0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
        0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f};
    // 16 of the even row, then 16 of the odd one
    const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleaved), both);
  }
};
