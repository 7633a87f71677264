// SPDX-License-Identifier: Apache-2.0
// Rows in and out of the kernels: loading, layer norm and its gradient, and the three layouts that
// the products read. Included by head_table.inl.
//
// A cell is what one 32-bit lane of a product takes: one fp32 number, or two bf16 numbers that
// follow each other along the axis that is summed over. U = Products::kUnit numbers a cell. A
// product computes Products::kGroup rows at once, in registers (6 x 4 of sums, 4 of operands) or,
// where Products::kTiles, in tiles; it takes a multiple of Products::kStep cells of the summed
// axis.

using Cell = uint32_t;

constexpr int64_t kLanes = 16;  // cells of a register
constexpr int64_t kPanel = 64;  // tokens of a panel: four registers of scores
// rows a pass over the other side serves: a multiple of panel and group
constexpr int64_t kBlock = 192;

inline int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 load(const bf16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/// To nearest even; a NaN stays one.
inline __m256i to_bf16_vector(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                  _mm512_set1_epi32(0x7fc0));
  return _mm512_cvtepi32_epi16(rounded);
}
inline void store(float* p, __m512 x) { _mm512_storeu_ps(p, x); }
inline void store(bf16* p, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16_vector(x));
}

/// Cuts a scratch buffer into aligned pieces; with a null base it only adds up their sizes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

/// Statistics of the layer norm of one row.
struct RowNorm {
  float mean, rstd;
};

struct Norm {
  const float* gain = nullptr;
  const float* bias = nullptr;
  float epsilon = 0;
  float scale = 1;  // factor on the result
};

template <class T>
RowNorm row_norm(const T* x, int64_t width, float epsilon) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t d = 0; d < width; d += kLanes) sum = _mm512_add_ps(sum, load(x + d));
  const float mean = _mm512_reduce_add_ps(sum) / static_cast<float>(width);
  __m512 squares = _mm512_setzero_ps();
  for (int64_t d = 0; d < width; d += kLanes) {
    const __m512 centred = _mm512_sub_ps(load(x + d), _mm512_set1_ps(mean));
    squares = _mm512_fmadd_ps(centred, centred, squares);
  }
  return {mean,
          1.0F / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(width) + epsilon)};
}

/// One row in fp32, normalised.
template <class T>
void load_row(const T* x, int64_t width, const Norm& norm, float* out) {
  const __m512 scale = _mm512_set1_ps(norm.scale);
  if (norm.gain == nullptr) {
    for (int64_t d = 0; d < width; d += kLanes) store(out + d, _mm512_mul_ps(load(x + d), scale));
    return;
  }
  const RowNorm stat = row_norm(x, width, norm.epsilon);
  for (int64_t d = 0; d < width; d += kLanes) {
    const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(load(x + d), _mm512_set1_ps(stat.mean)),
                                      _mm512_set1_ps(stat.rstd));
    store(out + d,
          _mm512_mul_ps(_mm512_fmadd_ps(unit, load(norm.gain + d), load(norm.bias + d)), scale));
  }
}

/// Rows begin … begin + 64, [64][width]; rows from `end` on are zero.
template <class T>
void load_panel(const HeadRows<const T>& rows, int64_t begin, int64_t end, int64_t width,
                const Norm& norm, float* out) {
  for (int64_t r = begin; r < begin + kPanel; ++r, out += width) {
    if (r < end) {
      load_row(rows.data + r * rows.stride, width, norm, out);
    } else {
      std::memset(out, 0, static_cast<size_t>(width) * sizeof(float));
    }
  }
}

/// Gradient of load_row: dy [width] in fp32 -> dx; adds the row's share to dgain and dbias.
template <class T>
void store_gradient(const float* dy, const T* x, int64_t width, const Norm& norm, T* dx,
                    float* dgain, float* dbias) {
  const __m512 scale = _mm512_set1_ps(norm.scale);
  if (norm.gain == nullptr) {
    for (int64_t d = 0; d < width; d += kLanes) store(dx + d, _mm512_mul_ps(load(dy + d), scale));
    return;
  }
  const RowNorm stat = row_norm(x, width, norm.epsilon);
  const __m512 mean = _mm512_set1_ps(stat.mean), rstd = _mm512_set1_ps(stat.rstd);
  __m512 sum = _mm512_setzero_ps(), product = _mm512_setzero_ps();
  for (int64_t d = 0; d < width; d += kLanes) {
    const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(load(x + d), mean), rstd);
    const __m512 g = _mm512_mul_ps(load(dy + d), scale);
    store(dgain + d, _mm512_fmadd_ps(g, unit, load(dgain + d)));
    store(dbias + d, _mm512_add_ps(g, load(dbias + d)));
    const __m512 du = _mm512_mul_ps(g, load(norm.gain + d));
    sum = _mm512_add_ps(sum, du);
    product = _mm512_fmadd_ps(du, unit, product);
  }
  const __m512 a = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(width));
  const __m512 b = _mm512_set1_ps(_mm512_reduce_add_ps(product) / static_cast<float>(width));
  for (int64_t d = 0; d < width; d += kLanes) {
    const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(load(x + d), mean), rstd);
    const __m512 du = _mm512_mul_ps(_mm512_mul_ps(load(dy + d), scale), load(norm.gain + d));
    store(dx + d, _mm512_mul_ps(rstd, _mm512_fnmadd_ps(unit, b, _mm512_sub_ps(du, a))));
  }
}

/// 16 x 16 cells: rows `from` apart become columns, `to` apart.
inline void transpose_16(const Cell* in, int64_t from, Cell* out, int64_t to) {
  __m512i r[16], s[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(in + i * from);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // r[i + c]: column c of each 128-bit quarter, four rows
    r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(r[c], r[c + 4], 0x44),
                  b = _mm512_shuffle_i32x4(r[c], r[c + 4], 0xee);
    const __m512i d = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0x44),
                  e = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0xee);
    _mm512_storeu_si512(out + c * to, _mm512_shuffle_i32x4(a, d, 0x88));
    _mm512_storeu_si512(out + (c + 4) * to, _mm512_shuffle_i32x4(a, d, 0xdd));
    _mm512_storeu_si512(out + (c + 8) * to, _mm512_shuffle_i32x4(b, e, 0x88));
    _mm512_storeu_si512(out + (c + 12) * to, _mm512_shuffle_i32x4(b, e, 0xdd));
  }
}

/// [rows][columns] cells -> [columns][rows], rows a multiple of 16; `to`: cells from one output row
/// to the next.
inline void transpose(const Cell* in, int64_t rows, int64_t columns, Cell* out, int64_t to) {
  const int64_t whole = columns / kLanes * kLanes;
  for (int64_t r = 0; r < rows; r += kLanes) {
    for (int64_t c = 0; c < whole; c += kLanes)
      transpose_16(in + r * columns + c, columns, out + c * to + r, to);
    for (int64_t c = whole; c < columns; ++c) {
      for (int64_t i = 0; i < kLanes; ++i) out[c * to + r + i] = in[(r + i) * columns + c];
    }
  }
}

/// Left operand, summed over columns: [64][width] -> cells [64][width / U].
template <class Products>
void pack_rows(const float* x, int64_t width, Cell* out) {
  for (int64_t i = 0; i < kPanel * width; i += kLanes)
    Products::store_along(out + i / Products::kUnit, load(x + i));
}

/// Right operand, summed over rows: [64][width] -> cells [64 / U][width].
template <class Products>
void pack_units(const float* x, int64_t width, Cell* out) {
  for (int64_t r = 0; r < kPanel;
       r += Products::kUnit, x += Products::kUnit * width, out += width) {
    for (int64_t d = 0; d < width; d += kLanes)
      _mm512_storeu_si512(
          out + d, Products::across(load(x + d), load(x + (Products::kUnit - 1) * width + d)));
  }
}

/// Right operand, summed over columns: [64][width] -> cells [width / U][64]. `temporary`:
/// [64][width / U].
template <class Products>
void pack_lanes(const float* x, int64_t width, Cell* temporary, Cell* out) {
  pack_rows<Products>(x, width, temporary);
  transpose(temporary, kPanel, width / Products::kUnit, out, kPanel);
}

/// [width][64] of a panel -> rows begin … end of `out`. `temporary`: [64][width].
template <class T>
void store_lanes(const float* lanes, int64_t width, const HeadRows<T>& out, int64_t begin,
                 int64_t end, float* temporary) {
  transpose(reinterpret_cast<const Cell*>(lanes), width, kPanel, reinterpret_cast<Cell*>(temporary),
            width);
  for (int64_t r = begin; r < end; ++r, temporary += width) {
    for (int64_t i = 0; i < width; i += kLanes)
      store(out.data + r * out.stride + i, load(temporary + i));
  }
}
