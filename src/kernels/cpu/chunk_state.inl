// SPDX-License-Identifier: Apache-2.0
// States of one head and the three products with them. Included after attention_products.inl.
//
// A row x of R numbers has the features x_i·x_((i+d) mod R), at place d·R + i for d = 0 … R/2: with
// d = 0 the squares, with any other d every product of two different numbers once (for d = R/2 the
// first half already has them all). So each run of 16 features is the product of two runs of the
// row, if the row is stored twice in succession, and no entry of the symmetric x ⊗ x is computed
// twice. A mixed product stands for two entries of x ⊗ x; that factor 2 is given to the state when
// it is read, where it costs no rounding.
//
// A state is kept transposed, [columns][features], with columns for [v, 1] (or the cotangent of the
// sums [v, 1]) and of zeros, so that their number is even, or where products have tiles a multiple
// of their rows. Rows pass in panels of 64.

constexpr int64_t kSteps =
    64;  // cells along the features between two visits of a product in memory: 16 kB for a panel
constexpr int64_t kWriteColumns = 64;  // features of a state that a panel is added to at once

template <class Products>
int64_t feature_count(int64_t width) {
  return rounded_up(width * (width + 1) / 2,
                    std::max<int64_t>(kLanes, Products::kUnit * Products::kStep));
}

template <class Products>
int64_t column_count(int64_t value_width) {
  return value_width + (Products::kTiles ? Products::kGroup : 2);
}

/// Numbers of a row of a panel of values: value_width of them, the last column, zeros.
template <class Products>
int64_t value_stride(int64_t value_width) {
  return rounded_up(value_width + kLanes,
                    std::max<int64_t>(kLanes, Products::kUnit * Products::kStep));
}

/// Cells of the columns of a state, in whole registers.
template <class Products>
int64_t turned_stride(int64_t columns) {
  return rounded_up(columns / Products::kUnit, kLanes);
}

struct StateScratch {
  int64_t width, features, value_width, columns;
  float* state;         // [columns][features]
  Cell* along;          // [columns][features / U] the state as read, summed along the features
  Cell* turned;         // [features][turned_stride] the state as read, summed along the columns
  Cell* turning;        // [turned_stride][16]
  float* rows;          // [64][2 R] a panel of rows, each stored twice
  float* lanes;         // [R][64] the same panel, transposed
  float* gradient;      // [R][64] of it
  float* values;        // [64][value_stride]
  Cell* temporary;      // [64][value_stride / U]
  Cell* value_rows;     // [value_stride][64 / U] summed along the panel's rows
  Cell* value_columns;  // [value_stride / U][64] summed along the columns
  Cell* expanded;       // [64][64] features of a panel
  float* product;       // [columns][64]
  float* output;        // [64][max(R, value_width)]
  size_t bytes;
};

template <class Products>
StateScratch state_scratch(void* base, int64_t width, int64_t value_width, bool backward) {
  constexpr int64_t unit = Products::kUnit;
  StateScratch s{};
  s.width = width;
  s.features = feature_count<Products>(width);
  s.value_width = value_width;
  s.columns = column_count<Products>(value_width);
  Arena arena(base);
  s.state = arena.take<float>(s.columns * s.features);
  s.along = arena.take<Cell>(s.columns * s.features / unit);
  s.rows = arena.take<float>(kPanel * 2 * width);
  s.lanes = arena.take<float>(width * kPanel);
  s.values = arena.take<float>(kPanel * value_stride<Products>(value_width));
  s.temporary = arena.take<Cell>(kPanel * value_stride<Products>(value_width) / unit);
  s.value_rows = arena.take<Cell>(value_stride<Products>(value_width) * kPanel / unit);
  s.expanded = arena.take<Cell>(kSteps * kPanel);
  s.product = arena.take<float>(s.columns * kPanel);
  s.output = arena.take<float>(kPanel * std::max(width, value_width));
  if (backward) {
    s.turned = arena.take<Cell>(s.features * turned_stride<Products>(s.columns));
    s.turning = arena.take<Cell>(turned_stride<Products>(s.columns) * kLanes);
    s.gradient = arena.take<float>(width * kPanel);
    s.value_columns = arena.take<Cell>(value_stride<Products>(value_width) / unit * kPanel);
  }
  s.bytes = arena.used();
  return s;
}

inline void clear_state(const StateScratch& s) {
  std::memset(s.state, 0, static_cast<size_t>(s.columns * s.features) * sizeof(float));
}

/// Rows begin … end (at most 64) into s.rows; the rest of the panel is zero and adds nothing to a
/// state.
template <class T>
void load_features(const HeadRows<const T>& rows, int64_t begin, int64_t end,
                   const StateScratch& s) {
  float* out = s.rows;
  for (int64_t r = begin; r < begin + kPanel; ++r, out += 2 * s.width) {
    for (int64_t i = 0; i < s.width; i += kLanes) {
      const __m512 x = r < end ? load(rows.data + r * rows.stride + i) : _mm512_setzero_ps();
      store(out + i, x);
      store(out + s.width + i, x);
    }
  }
}

/// Rows begin … end of the values, or of the gradients of the sums, into s.values. last: the
/// numbers of the last column, null for ones.
template <class Products, class T>
void load_values(const HeadRows<const T>& rows, const float* last, int64_t begin, int64_t end,
                 const StateScratch& s) {
  float* out = s.values;
  for (int64_t r = begin; r < begin + kPanel; ++r, out += value_stride<Products>(s.value_width)) {
    for (int64_t e = 0; e < s.value_width; e += kLanes) {
      store(out + e, r < end ? load(rows.data + r * rows.stride + e) : _mm512_setzero_ps());
    }
    const float one = r >= end ? 0 : last == nullptr ? 1 : last[r];
    store(out + s.value_width, _mm512_maskz_mov_ps(1, _mm512_set1_ps(one)));
    for (int64_t e = s.value_width + kLanes; e < value_stride<Products>(s.value_width); e += kLanes)
      store(out + e, _mm512_setzero_ps());
  }
}

/// Factor of 16 features from `first` on: how many entries of x ⊗ x they stand for. Those that fill
/// up the last register stand for none.
inline __m512 entries(int64_t first, const StateScratch& s) {
  const int64_t left = std::clamp<int64_t>(s.width * (s.width + 1) / 2 - first, 0, kLanes);
  return _mm512_maskz_mov_ps(static_cast<__mmask16>((1U << left) - 1U),
                             _mm512_set1_ps(first < s.width ? 1.0F : 2.0F));
}

/// The state as `read_state` takes it.
template <class Products>
void round_along(const StateScratch& s) {
  for (int64_t f = 0; f < s.features; f += kLanes) {
    const __m512 factor = entries(f, s);
    for (int64_t c = 0; c < s.columns; ++c) {
      Products::store_along(s.along + (c * s.features + f) / Products::kUnit,
                            _mm512_mul_ps(load(s.state + c * s.features + f), factor));
    }
  }
}

/// The state as `pull_back` takes it.
template <class Products>
void round_turned(const StateScratch& s) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t stride = turned_stride<Products>(s.columns);
  std::memset(s.turning, 0, static_cast<size_t>(stride * kLanes) * sizeof(Cell));
  for (int64_t f = 0; f < s.features; f += kLanes) {
    const __m512 factor = entries(f, s);
    for (int64_t c = 0; c < s.columns; c += unit) {
      const float* state = s.state + c * s.features + f;
      _mm512_storeu_si512(
          s.turning + c / unit * kLanes,
          Products::across(_mm512_mul_ps(load(state), factor),
                           _mm512_mul_ps(load(state + (unit - 1) * s.features), factor)));
    }
    for (int64_t c = 0; c < stride; c += kLanes)
      transpose_16(s.turning + c * kLanes, kLanes, s.turned + f * stride + c, stride);
  }
}

/// s.rows -> s.lanes.
inline void turn_rows(const StateScratch& s) {
  for (int64_t i = 0; i < s.width; i += kLanes) {
    for (int64_t r = 0; r < kPanel; r += kLanes) {
      transpose_16(reinterpret_cast<const Cell*>(s.rows + r * 2 * s.width + i), 2 * s.width,
                   reinterpret_cast<Cell*>(s.lanes + i * kPanel + r), kPanel);
    }
  }
}

/// state += features(rows)ᵀ · values, of `rows` rows of s.rows and s.value_rows.
template <class Products>
void write_state(int64_t rows, const StateScratch& s) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t steps = rounded_up((rows + unit - 1) / unit, Products::kStep);
  for (int64_t first = 0; first < s.features; first += kWriteColumns) {
    const int64_t count = std::min(kWriteColumns, s.features - first);
    for (int64_t n = 0; n < count; n += kLanes) {
      const int64_t i = (first + n) % s.width, d = (first + n) / s.width;
      const float* x = s.rows + i;
      Cell* out = s.expanded + n;
      for (int64_t r = 0; r < steps; ++r, x += unit * 2 * s.width, out += kWriteColumns) {
        const float* next = x + (unit - 1) * 2 * s.width;
        _mm512_storeu_si512(out, Products::across(_mm512_mul_ps(load(x), load(x + d)),
                                                  _mm512_mul_ps(load(next), load(next + d))));
      }
    }
    accumulate_rows<Products>(s.value_rows, kPanel / unit, s.expanded, kWriteColumns, steps,
                              s.state + first, s.features, s.columns, count);
  }
}

/// s.product [columns][64] = (features of s.lanes) · (the state as read), the first `columns` of
/// its columns.
template <class Products>
void read_state(int64_t columns, const StateScratch& s) {
  constexpr int64_t unit = Products::kUnit;
  std::memset(s.product, 0, static_cast<size_t>(columns * kPanel) * sizeof(float));
  int64_t i = 0, d = 0;
  for (int64_t first = 0; first < s.features; first += kSteps * unit) {
    const int64_t steps = std::min(kSteps, (s.features - first) / unit);
    Cell* out = s.expanded;
    for (int64_t step = 0; step < steps; ++step, out += kPanel) {
      const float* x = s.lanes + i * kPanel;
      const float* y = s.lanes + (i + d < s.width ? i + d : i + d - s.width) * kPanel;
      const float* next_x = s.lanes + (i + unit - 1) * kPanel;
      const int64_t next = i + unit - 1 + d;
      const float* next_y = s.lanes + (next < s.width ? next : next - s.width) * kPanel;
#pragma GCC unroll 4
      for (int64_t n = 0; n < kPanel; n += kLanes) {
        _mm512_storeu_si512(out + n,
                            Products::across(_mm512_mul_ps(load(x + n), load(y + n)),
                                             _mm512_mul_ps(load(next_x + n), load(next_y + n))));
      }
      i += unit;
      if (i == s.width) {
        i = 0;
        ++d;
      }
    }
    accumulate_rows<Products>(s.along + first / unit, s.features / unit, s.expanded, kPanel, steps,
                              s.product, kPanel, columns, kPanel);
  }
}

/// What M features from place (d, i) on add to s.gradient.
template <class Products, int M>
void pull_back_tile(int64_t first, int64_t i, int64_t d, const StateScratch& s) {
  const int64_t stride = turned_stride<Products>(s.columns);
  constexpr int kRegisters = kPanel / kLanes;
  __m512 sums[M][kRegisters];
  product<Products, M, kRegisters>(s.turned + first * stride, stride, s.value_columns, kPanel,
                                   rounded_up(s.columns / Products::kUnit, Products::kStep), sums);
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
    const int64_t x = i * kPanel, y = (i + d < s.width ? i + d : i + d - s.width) * kPanel;
#pragma GCC unroll 4
    for (int n = 0; n < kRegisters; ++n) {
      float* dx = s.gradient + x + n * kLanes;
      float* dy = s.gradient + y + n * kLanes;
      store(dx, _mm512_fmadd_ps(sums[m][n], load(s.lanes + y + n * kLanes), load(dx)));
      store(dy, _mm512_fmadd_ps(sums[m][n], load(s.lanes + x + n * kLanes), load(dy)));
    }
    if (++i == s.width) {
      i = 0;
      ++d;
    }
  }
}

/// s.gradient [R][64] of s.lanes: the features have the gradients (s.value_columns) · (the state as
/// read)ᵀ.
template <class Products>
void pull_back(const StateScratch& s) {
  std::memset(s.gradient, 0, static_cast<size_t>(s.width * kPanel) * sizeof(float));
  for_groups<Products>(s.features, [&]<int M>(int64_t f) {
    pull_back_tile<Products, M>(f, f % s.width, f / s.width, s);
  });
}

template <class T>
void store_zeros(const HeadRows<T>& out, int64_t width, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    std::memset(out.data + r * out.stride, 0, static_cast<size_t>(width) * sizeof(T));
}
