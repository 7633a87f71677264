// SPDX-License-Identifier: Apache-2.0
// Products of bf16 numbers in the tiles of AMX, summed in fp32. Included after products_bf16.inl.
//
// Every tile has 16 rows of 16 cells. Tiles 0 … 3 hold sums, 4 the left operand, 5 and 6 the right
// one. A product needs the thread's tiles configured (TileScope). It takes 16 cycles whatever the
// number of rows, so what is narrower than a tile is filled up with zeros.

/// The tiles of the calling thread, for a scope. Nothing in it may use tiles otherwise.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16};
    } configuration;
    _tile_loadconfig(&configuration);
  }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// The compiler's intrinsics do not say that they read or write memory.
template <int Tile>
[[gnu::always_inline]] inline void load_tile(const void* p, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int Tile>
[[gnu::always_inline]] inline void store_tile(void* p, int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(row_bytes), "i"(Tile) : "memory");
}
template <int Tile>
[[gnu::always_inline]] inline void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}
template <int Sum, int Right>
[[gnu::always_inline]] inline void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c1, %%tmm4, %%tmm%c0" : : "i"(Sum), "i"(Right));
}

struct TileProducts : Bf16Products {
  static constexpr const char* kName = "amx";
  static constexpr bool kTiles = true;
  static constexpr int kGroup = 16;
  static constexpr int64_t kStep = 16;

  /// c[16][16·N] = a[16][steps] · b[steps][16·N], or with Add added to it.
  template <int N, bool Add>
  static void multiply(const Cell* a, int64_t a_row, const Cell* b, int64_t b_row, int64_t steps,
                       float* c, int64_t c_row) {
    static_assert(N >= 1 && N <= 4);
    const int64_t a_bytes = a_row * 4, b_bytes = b_row * 4, c_bytes = c_row * 4;
    if constexpr (Add) {
      load_tile<0>(c, c_bytes);
      if constexpr (N > 1) load_tile<1>(c + kLanes, c_bytes);
      if constexpr (N > 2) load_tile<2>(c + 2 * kLanes, c_bytes);
      if constexpr (N > 3) load_tile<3>(c + 3 * kLanes, c_bytes);
    } else {
      clear_tile<0>();
      if constexpr (N > 1) clear_tile<1>();
      if constexpr (N > 2) clear_tile<2>();
      if constexpr (N > 3) clear_tile<3>();
    }
    for (int64_t s = 0; s < steps; s += kStep, a += kStep, b += kStep * b_row) {
      load_tile<4>(a, a_bytes);
      load_tile<5>(b, b_bytes);
      multiply_tiles<0, 5>();
      if constexpr (N > 1) {
        load_tile<6>(b + kLanes, b_bytes);
        multiply_tiles<1, 6>();
      }
      if constexpr (N > 2) {
        load_tile<5>(b + 2 * kLanes, b_bytes);
        multiply_tiles<2, 5>();
      }
      if constexpr (N > 3) {
        load_tile<6>(b + 3 * kLanes, b_bytes);
        multiply_tiles<3, 6>();
      }
    }
    store_tile<0>(c, c_bytes);
    if constexpr (N > 1) store_tile<1>(c + kLanes, c_bytes);
    if constexpr (N > 2) store_tile<2>(c + 2 * kLanes, c_bytes);
    if constexpr (N > 3) store_tile<3>(c + 3 * kLanes, c_bytes);
  }
};
