// SPDX-License-Identifier: Apache-2.0
// One level of a learned sketch, forward and backward, on a panel of 64 rows. Included after
// attention_products.inl.
//
// A panel is kept transposed, [features][64]: sums over features need no additions across a
// register, the 8 R hidden numbers of a row never leave the caches, and every product has the
// weights, packed once, as its left operand and the panel as its right one.

constexpr int64_t kHidden = 8;  // hidden numbers for each number of a sketch
// cells of hidden numbers between two visits of a product in memory: 16 kB for a panel
constexpr int64_t kChunkSteps = 64;
constexpr int kRegisters = kPanel / kLanes;
constexpr float kSketchEpsilon = 1e-5F;

/// Packed weights of a level.
struct Level {
  int64_t in, size;
  float *gain, *bias;
  Cell* up;           // [8 R][in / U]
  Cell* down;         // [R][8 R / U]
  Cell* up_turned;    // [in][8 R / U]
  Cell* down_turned;  // [8 R][R / U]

  int64_t hidden() const { return kHidden * size; }
};

template <class Products>
Level take_level(Arena& arena, int64_t in, int64_t size) {
  Level w{};
  w.in = in;
  w.size = size;
  w.gain = arena.take<float>(in);
  w.bias = arena.take<float>(in);
  w.up = arena.take<Cell>(w.hidden() * in / Products::kUnit);
  w.down = arena.take<Cell>(w.hidden() * size / Products::kUnit);
  w.up_turned = arena.take<Cell>(w.hidden() * in / Products::kUnit);
  w.down_turned = arena.take<Cell>(w.hidden() * size / Products::kUnit);
  return w;
}

/// What the backward pass of a level needs of its forward pass.
struct Kept {
  float* unit;      // [in][64] rows less their mean, over their deviation
  float* rstd;      // [64]
  Cell* normed;     // [64 / U][in] summed along the rows
  Cell* activated;  // [8 R][64 / U] likewise
  float* slope;     // [8 R][64] of gelu
};

/// Sums over all rows that are not yet in the order of the parameters.
struct Sums {
  float* gain;  // [in][16]
  float* bias;  // [in][16]
  float* down;  // [8 R][R]
};

struct Work {
  Cell* features;  // [max(in, R) / U][64] summed along the features
  Cell* along;     // [max(in, R)][64 / U] the same, summed along the rows
  Cell* chunk;     // [64][64] hidden numbers, summed along them
  Cell* rows;      // [64 U][64 / U] the same, summed along the rows
  Cell* turned;    // [64 / U][R] a gradient, summed along the rows
  float* tile;     // [group][64]
};

/// Two features of 16 rows, as right operand.
template <class Products>
void store_features(Cell* out, __m512 x, __m512 next) {
  _mm512_storeu_si512(out, Products::across(x, next));
  if constexpr (Products::kUnit == 1)
    _mm512_storeu_si512(out + kPanel, Products::across(next, next));
}

/// 2^t for t not above 126, to fp32 rounding, or to 1e-4 (a bf16 number has 4e-3) in the short
/// form.
template <bool Short>
__m512 power_of_two(__m512 t) {
  const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF);  // t - floor(t); 0 for an infinite t
  __m512 p;
  // Interpolated at the Chebyshev nodes of [0, 1].
  if constexpr (Short) {
    p = _mm512_fmadd_ps(_mm512_set1_ps(7.896725704e-02F), f, _mm512_set1_ps(2.246931558e-01F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.963247711e-01F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.999002882e-01F));
  } else {
    p = _mm512_fmadd_ps(_mm512_set1_ps(2.186578478e-04F), f, _mm512_set1_ps(1.239133184e-03F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.684186310e-03F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.548063020e-02F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402304544e-01F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931469328e-01F));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  }
  return _mm512_scalef_ps(p, t);  // times 2^floor(t)
}

/// gelu(x) = x·σ(z), z = 2√(2/π)·(x + 0.044715·x³); slope where it is wanted.
template <class Products, bool Slope>
[[gnu::always_inline]] inline __m512 gelu(__m512 x, __m512& slope) {
  constexpr float linear = 1.5957691216F, cubic = 0.044715F * linear, log2e = 1.4426950409F;
  const __m512 one = _mm512_set1_ps(1.0F), square = _mm512_mul_ps(x, x);
  const __m512 t = _mm512_mul_ps(
      x, _mm512_fmadd_ps(square, _mm512_set1_ps(-cubic * log2e), _mm512_set1_ps(-linear * log2e)));
  // Above 2^126 the reciprocal would be 0, and 0·∞ no number. A NaN passes, since it comes second.
  const __m512 e = power_of_two<Products::kUnit == 2>(_mm512_min_ps(_mm512_set1_ps(126.0F), t));
  const __m512 divisor = _mm512_add_ps(one, e);
  __m512 s = _mm512_rcp14_ps(divisor);
  if constexpr (Products::kUnit == 1) s = _mm512_fmadd_ps(s, _mm512_fnmadd_ps(divisor, s, one), s);
  const __m512 result = _mm512_mul_ps(x, s);
  if constexpr (Slope) {
    const __m512 dz = _mm512_fmadd_ps(square, _mm512_set1_ps(3 * cubic), _mm512_set1_ps(linear));
    slope = _mm512_fmadd_ps(_mm512_mul_ps(result, _mm512_mul_ps(e, s)), dz, s);
  }
  return result;
}

/// tanh to about one unit in the last place.
inline __m512 tanh_of(__m512 x) {
  const __m512 square = _mm512_mul_ps(x, x), size = _mm512_abs_ps(x), one = _mm512_set1_ps(1.0F);
  // Below 0.625 (Cephes): 1 - 2/(1 + exp 2x) would cancel there.
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(-5.70498872745e-3F), square,
                             _mm512_set1_ps(2.06390887954e-2F));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-5.37397155531e-2F));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(1.33314422036e-1F));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-3.33332819422e-1F));
  const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, square), x, x);
  // A 2x of 40 is already 1; the bound keeps the power in range.
  const __m512 doubled = _mm512_min_ps(_mm512_set1_ps(40.0F), _mm512_add_ps(size, size));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(doubled, _mm512_set1_ps(1.4426950409F)),
                                        _MM_FROUND_TO_NEG_INF);
  // ln 2 in two parts: the first has 9 bits
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), doubled);
  r = _mm512_mul_ps(_mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4F), r),
                    _mm512_set1_ps(1.4426950409F));
  const __m512 e = _mm512_scalef_ps(power_of_two<false>(r), n);
  const __m512 large =
      _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0F), _mm512_add_ps(one, e)));
  const __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0F));
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(size, _mm512_set1_ps(0.625F), _CMP_LT_OQ),
                              _mm512_or_ps(large, sign), small);
}

/// x [in][64] -> work.features; with Keep also unit, rstd and normed.
template <class Products, bool Keep>
void norm_lanes(const Level& w, const float* x, const Work& work, const Kept& kept) {
  constexpr int64_t unit = Products::kUnit;
  const __m512 count = _mm512_set1_ps(1.0F / static_cast<float>(w.in));
  for (int64_t r = 0; r < kPanel; r += kLanes) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < w.in; ++i) sum = _mm512_add_ps(sum, load(x + i * kPanel + r));
    const __m512 mean = _mm512_mul_ps(sum, count);
    for (int64_t i = 0; i < w.in; ++i) {
      const __m512 centred = _mm512_sub_ps(load(x + i * kPanel + r), mean);
      squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    const __m512 rstd = _mm512_div_ps(
        _mm512_set1_ps(1.0F),
        _mm512_sqrt_ps(_mm512_fmadd_ps(squares, count, _mm512_set1_ps(kSketchEpsilon))));
    if constexpr (Keep) store(kept.rstd + r, rstd);
    for (int64_t i = 0; i < w.in; i += 2) {
      const __m512 a = _mm512_mul_ps(_mm512_sub_ps(load(x + i * kPanel + r), mean), rstd);
      const __m512 b = _mm512_mul_ps(_mm512_sub_ps(load(x + (i + 1) * kPanel + r), mean), rstd);
      const __m512 y = _mm512_fmadd_ps(a, _mm512_set1_ps(w.gain[i]), _mm512_set1_ps(w.bias[i]));
      const __m512 z =
          _mm512_fmadd_ps(b, _mm512_set1_ps(w.gain[i + 1]), _mm512_set1_ps(w.bias[i + 1]));
      store_features<Products>(work.features + i / unit * kPanel + r, y, z);
      if constexpr (Keep) {
        store(kept.unit + i * kPanel + r, a);
        store(kept.unit + (i + 1) * kPanel + r, b);
        Products::store_along(work.along + (i * kPanel + r) / unit, y);
        Products::store_along(work.along + ((i + 1) * kPanel + r) / unit, z);
      }
    }
  }
  if constexpr (Keep) transpose(work.along, w.in, kPanel / unit, kept.normed, w.in);
}

/// dy, the gradient of the normed rows [in][64] -> dx [in][64].
inline void norm_lanes_backward(const Level& w, const float* dy, const Kept& kept, const Sums& sums,
                                float* dx) {
  const __m512 count = _mm512_set1_ps(1.0F / static_cast<float>(w.in));
  for (int64_t r = 0; r < kPanel; r += kLanes) {
    __m512 sum = _mm512_setzero_ps(), product = _mm512_setzero_ps();
    for (int64_t i = 0; i < w.in; ++i) {
      const __m512 d = load(dy + i * kPanel + r), unit = load(kept.unit + i * kPanel + r);
      const __m512 du = _mm512_mul_ps(d, _mm512_set1_ps(w.gain[i]));
      sum = _mm512_add_ps(sum, du);
      product = _mm512_fmadd_ps(du, unit, product);
      store(sums.gain + i * kLanes, _mm512_fmadd_ps(d, unit, load(sums.gain + i * kLanes)));
      store(sums.bias + i * kLanes, _mm512_add_ps(d, load(sums.bias + i * kLanes)));
    }
    const __m512 a = _mm512_mul_ps(sum, count), b = _mm512_mul_ps(product, count),
                 rstd = load(kept.rstd + r);
    for (int64_t i = 0; i < w.in; ++i) {
      const __m512 du = _mm512_fmsub_ps(load(dy + i * kPanel + r), _mm512_set1_ps(w.gain[i]), a);
      store(dx + i * kPanel + r,
            _mm512_mul_ps(rstd, _mm512_fnmadd_ps(load(kept.unit + i * kPanel + r), b, du)));
    }
  }
}

/// work.tile [M][64] = a[M][steps] · b[steps][64]
template <class Products, int M>
void multiply_tile(const Cell* a, int64_t steps, const Cell* b, float* tile) {
  if constexpr (Products::kTiles)
    return Products::template multiply<kRegisters, false>(a, steps, b, kPanel, steps, tile, kPanel);
  __m512 sums[M][kRegisters];
  product<Products, M, kRegisters>(a, steps, b, kPanel, steps, sums);
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kRegisters; ++n) store(tile + m * kPanel + n * kLanes, sums[m][n]);
  }
}

/// What becomes of M hidden numbers from `first` on, the `place`-th of their chunk.
template <class Products, bool Keep>
struct Activate {
  const Level& w;
  const Work& work;
  const Kept& kept;

  template <int M>
  void tile(int64_t first, int64_t place) const {
    constexpr int64_t unit = Products::kUnit;
    const int64_t steps = w.in / unit;
    multiply_tile<Products, M>(w.up + first * steps, steps, work.features, work.tile);
    for (int64_t at = 0; at < M * kPanel;
         at += at % kPanel == kPanel - kLanes ? kPanel + kLanes : kLanes) {
      __m512 slope, next_slope;
      const __m512 x = gelu<Products, Keep>(load(work.tile + at), slope);
      const __m512 next = gelu<Products, Keep>(load(work.tile + at + kPanel), next_slope);
      store_features<Products>(work.chunk + (place + at / kPanel) / unit * kPanel + at % kPanel, x,
                               next);
      if constexpr (Keep) {
        const int64_t to = first * kPanel + at;
        Products::store_along(kept.activated + to / unit, x);
        Products::store_along(kept.activated + (to + kPanel) / unit, next);
        store(kept.slope + to, slope);
        store(kept.slope + to + kPanel, next_slope);
      }
    }
  }
};

/// The gradients of M hidden numbers before their activation, from work.features, that of the
/// level.
template <class Products>
struct PullBack {
  const Level& w;
  const Work& work;
  const Kept& kept;

  template <int M>
  void tile(int64_t first, int64_t place) const {
    constexpr int64_t unit = Products::kUnit;
    const int64_t steps = w.size / unit;
    multiply_tile<Products, M>(w.down_turned + first * steps, steps, work.features, work.tile);
    for (int64_t at = 0; at < M * kPanel;
         at += at % kPanel == kPanel - kLanes ? kPanel + kLanes : kLanes) {
      const float* slope = kept.slope + first * kPanel + at;
      const __m512 x = _mm512_mul_ps(load(work.tile + at), load(slope));
      const __m512 next = _mm512_mul_ps(load(work.tile + at + kPanel), load(slope + kPanel));
      store_features<Products>(work.chunk + (place + at / kPanel) / unit * kPanel + at % kPanel, x,
                               next);
      Products::store_along(work.rows + (place * kPanel + at) / unit, x);
      Products::store_along(work.rows + (place * kPanel + at + kPanel) / unit, next);
    }
  }
};

/// A chunk of hidden numbers from `first` on.
template <class Products, class Tiles>
void for_chunk(const Tiles& tiles, int64_t first, int64_t count) {
  for_groups<Products>(count,
                       [&]<int M>(int64_t place) { tiles.template tile<M>(first + place, place); });
}

/// x [in][64] -> y [R][64]
template <class Products, bool Keep>
void level_forward(const Level& w, const float* x, float* y, const Work& work, const Kept& kept) {
  constexpr int64_t unit = Products::kUnit, chunk = kChunkSteps * unit;
  norm_lanes<Products, Keep>(w, x, work, kept);
  std::memset(y, 0, static_cast<size_t>(w.size * kPanel) * sizeof(float));
  for (int64_t first = 0; first < w.hidden(); first += chunk) {
    for_chunk<Products>(Activate<Products, Keep>{w, work, kept}, first, chunk);
    accumulate_rows<Products>(w.down + first / unit, w.hidden() / unit, work.chunk, kPanel,
                              kChunkSteps, y, kPanel, w.size, kPanel);
  }
}

/// dy [R][64] -> dx [in][64], `dnormed` likewise. dup [8 R][in] and sums are added to.
template <class Products>
void level_backward(const Level& w, const float* dy, float* dnormed, float* dx, float* dup,
                    const Work& work, const Kept& kept, const Sums& sums) {
  constexpr int64_t unit = Products::kUnit, chunk = kChunkSteps * unit, rows = kPanel / unit;
  for (int64_t i = 0; i < w.size * kPanel;
       i += i % kPanel == kPanel - kLanes ? kPanel + kLanes : kLanes) {
    store_features<Products>(work.features + i / kPanel / unit * kPanel + i % kPanel, load(dy + i),
                             load(dy + i + kPanel));
    Products::store_along(work.along + i / unit, load(dy + i));
    Products::store_along(work.along + (i + kPanel) / unit, load(dy + i + kPanel));
  }
  transpose(work.along, w.size, rows, work.turned, w.size);
  std::memset(dnormed, 0, static_cast<size_t>(w.in * kPanel) * sizeof(float));
  for (int64_t first = 0; first < w.hidden(); first += chunk) {
    for_chunk<Products>(PullBack<Products>{w, work, kept}, first, chunk);
    accumulate_rows<Products>(w.up_turned + first / unit, w.hidden() / unit, work.chunk, kPanel,
                              kChunkSteps, dnormed, kPanel, w.in, kPanel);
    accumulate_rows<Products>(work.rows, rows, kept.normed, w.in, rows, dup + first * w.in, w.in,
                              chunk, w.in);
    accumulate_rows<Products>(kept.activated + first * rows, rows, work.turned, w.size, rows,
                              sums.down + first * w.size, w.size, chunk, w.size);
  }
  norm_lanes_backward(w, dnormed, kept, sums, dx);
}
