// SPDX-License-Identifier: Apache-2.0
// Backward pass of one head (docs/method.md §3). Blocks of 192 keys pass over panels of 64 queries.
// Tiles are transposed, a group of keys by 64 queries: the weights and score gradients then are the
// left operands of dV and dK as they stand. dQ is kept transposed. o = N / c with c = one + z: dN =
// dO / c, dz = -(dO·o) / c, dW_ij = dN_i·v_j + dz_i, dS = p·S^(p-1)·dW.

struct BackwardScratch {
  Cell* q_lanes;  // [panels][D / U][64]
  Cell* q_units;  // [panels · 64 / U][D]
  Cell* n_lanes;  // the same of dN
  Cell* n_units;
  float* dz;          // [panels · 64]
  float* dq;          // [panels][D][64]
  float* panel;       // [64][D]
  Cell* temporary;    // [64][D]
  Cell* k_rows;       // [192][D / U]
  Cell* k_columns;    // [D][192 / U]
  Cell* v_rows;       // [192][D / U]
  float* dk;          // [192][D]
  float* dv;          // [192][D]
  float* slopes;      // [group][64] p·S^(p-1)
  Cell* weights;      // [group][64 / U]
  Cell* score_rows;   // [group][64 / U] dS
  Cell* score_units;  // [192 / U][64] dS
  float* dgain;       // [D]
  float* dbias;       // [D]
  size_t bytes;
};

template <class Products>
BackwardScratch backward_scratch(void* base, int64_t length, int64_t width) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t tokens = (length + kPanel - 1) / kPanel * kPanel;
  Arena arena(base);
  BackwardScratch s{};
  s.q_lanes = arena.take<Cell>(tokens * width / unit);
  s.q_units = arena.take<Cell>(tokens * width / unit);
  s.n_lanes = arena.take<Cell>(tokens * width / unit);
  s.n_units = arena.take<Cell>(tokens * width / unit);
  s.dz = arena.take<float>(tokens);
  s.dq = arena.take<float>(tokens * width);
  s.panel = arena.take<float>(kPanel * width);
  s.temporary = arena.take<Cell>(kPanel * width);
  s.k_rows = arena.take<Cell>(kBlock * width / unit);
  s.k_columns = arena.take<Cell>(kBlock * width / unit);
  s.v_rows = arena.take<Cell>(kBlock * width / unit);
  s.dk = arena.take<float>(kBlock * width);
  s.dv = arena.take<float>(kBlock * width);
  s.slopes = arena.take<float>(Products::kGroup * kPanel);
  s.weights = arena.take<Cell>(Products::kGroup * kPanel / unit);
  s.score_rows = arena.take<Cell>(Products::kGroup * kPanel / unit);
  s.score_units = arena.take<Cell>(kBlock / unit * kPanel);
  s.dgain = arena.take<float>(width);
  s.dbias = arena.take<float>(width);
  s.bytes = arena.used();
  return s;
}

/// dN [64][D] into s.panel, dz into s.dz. Both from the same rounded dN: dN·v + dz cancels where
/// one weight outweighs all others.
template <class Products, class T>
void load_output_gradient(const PolynomialBackward<T>& a, int64_t begin, const BackwardScratch& s) {
  const int64_t width = a.head.width;
  load_panel(a.output_gradient, begin, a.head.length, width, Norm{}, s.panel);
  for (int64_t r = 0; r < kPanel; ++r) {
    const int64_t row = begin + r;
    s.dz[row] = 0;
    if (row >= a.head.length) continue;
    float* dn = s.panel + r * width;
    const float inverse = a.normaliser[row] == 0 ? 0 : 1 / a.normaliser[row];
    const T* output = a.output.data + row * a.output.stride;
    __m512 product = _mm512_setzero_ps();
    for (int64_t d = 0; d < width; d += kLanes) {
      const __m512 g = Products::rounded(_mm512_mul_ps(load(dn + d), _mm512_set1_ps(inverse)));
      product = _mm512_fmadd_ps(g, load(output + d), product);
      store(dn + d, g);
    }
    s.dz[row] = -_mm512_reduce_add_ps(product);
  }
}

/// A group of keys from `key` on (`slot` within the block) and the last 16·N of 64 queries from
/// `query` on.
template <class Products, int Degree, int N, class T>
void tile(const PolynomialHead<T>& head, const BackwardScratch& s, int64_t key, int64_t slot,
          int64_t query, bool masked) {
  constexpr int64_t unit = Products::kUnit;
  constexpr int kGroup = Products::kGroup;
  constexpr int64_t skip = kPanel - N * kLanes;  // lanes that see none of the keys
  const int64_t cells = head.width / unit;
  const __m512 degree = _mm512_set1_ps(static_cast<float>(head.degree));
  __mmask16 seen[kGroup][N];
  if (masked) {
    for (int n = 0; n < N; ++n) {
      const int64_t base = query + skip + n * kLanes;
      const int64_t left = std::clamp<int64_t>(head.length - base, 0, kLanes);
      const __m512i starts = head.starts == nullptr ? _mm512_setzero_si512()
                                                    : _mm512_maskz_loadu_epi32(
                                                          static_cast<__mmask16>((1U << left) - 1U),
                                                          head.starts + base);
      for (int m = 0; m < kGroup; ++m) {
        const __mmask16 own =
            _mm512_cmple_epi32_mask(starts, _mm512_set1_epi32(static_cast<int>(key + m)));
        seen[m][n] = static_cast<__mmask16>(own & lanes_between(key + m, head.length - 1, base));
      }
    }
  }
  __m512 sums[kGroup][N];
  product<Products, kGroup, N>(s.k_rows + slot * cells, cells, s.q_lanes + query * cells + skip,
                               kPanel, cells, sums);
#pragma GCC unroll 6
  for (int m = 0; m < kGroup; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      __m512 odd, even;
      powers<Degree>(sums[m][n], head.degree, odd, even);
      if (masked) even = _mm512_maskz_mov_ps(seen[m][n], even);
      store(s.slopes + m * kPanel + n * kLanes, _mm512_mul_ps(odd, degree));
      Products::store_along(s.weights + (m * kPanel + n * kLanes) / unit, even);
    }
  }
  product<Products, kGroup, N>(s.v_rows + slot * cells, cells, s.n_lanes + query * cells + skip,
                               kPanel, cells, sums);
#pragma GCC unroll 6
  for (int m = 0; m < kGroup; m += Products::kUnit) {
    Cell* units = s.score_units + (slot + m) / unit * kPanel;
    for (int64_t lane = 0; lane < skip; lane += kLanes)
      _mm512_storeu_si512(units + lane, _mm512_setzero_si512());
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      __m512 gradient[2];
#pragma GCC unroll 2
      for (int u = 0; u < Products::kUnit; ++u) {
        const __m512 dweight =
            _mm512_add_ps(sums[m + u][n], load(s.dz + query + skip + n * kLanes));
        gradient[u] = _mm512_mul_ps(dweight, load(s.slopes + (m + u) * kPanel + n * kLanes));
        if (masked) gradient[u] = _mm512_maskz_mov_ps(seen[m + u][n], gradient[u]);
        Products::store_along(s.score_rows + ((m + u) * kPanel + n * kLanes) / unit, gradient[u]);
      }
      _mm512_storeu_si512(units + skip + n * kLanes,
                          Products::across(gradient[0], gradient[Products::kUnit - 1]));
    }
  }
  const int64_t width = head.width, from = (query + skip) / unit * width;
  accumulate<Products, kGroup>(s.weights, kPanel / unit, s.n_units + from, width, N * kLanes / unit,
                               s.dv + slot * width, width, width);
  accumulate<Products, kGroup>(s.score_rows, kPanel / unit, s.q_units + from, width,
                               N * kLanes / unit, s.dk + slot * width, width, width);
}

template <class Products, int Degree, class T>
void key_block(const PolynomialHead<T>& head, const BackwardScratch& s, int64_t block,
               int64_t rows) {
  constexpr int64_t unit = Products::kUnit;
  constexpr int64_t kGroup = Products::kGroup;
  const int64_t width = head.width;
  const int64_t groups = (rows + kGroup - 1) / kGroup;
  for (int64_t query = block; query < head.length; query += kPanel) {
    // later queries start later still
    if (head.starts != nullptr && head.starts[query] >= block + rows) break;
    const int64_t cut =
        head.starts == nullptr ? 0 : head.starts[std::min(query + kPanel, head.length) - 1];
    const int64_t active = std::min(groups, (query + kPanel - 1 - block) / kGroup + 1);
    for (int64_t g = 0; g < active; ++g) {
      const int64_t slot = g * kGroup, key = block + slot;
      const bool masked = key + kGroup > query + 1 || key < cut;
      // Registers that see none of the keys; an even number where products have tiles, which take
      // 32 queries at once.
      switch (key <= query ? 0 : (key - query) / kLanes & ~(Products::kTiles ? 1 : 0)) {
        case 0:
          tile<Products, Degree, 4>(head, s, key, slot, query, masked);
          break;
        case 1:
          tile<Products, Degree, 3>(head, s, key, slot, query, masked);
          break;
        case 2:
          tile<Products, Degree, 2>(head, s, key, slot, query, masked);
          break;
        default:
          tile<Products, Degree, 1>(head, s, key, slot, query, masked);
      }
    }
    const int64_t cells = active * kGroup / unit, steps = rounded_up(cells, Products::kStep);
    std::memset(s.score_units + cells * kPanel, 0,
                static_cast<size_t>((steps - cells) * kPanel) * sizeof(Cell));
    accumulate_rows<Products>(s.k_columns, kBlock / unit, s.score_units, kPanel, steps,
                              s.dq + query * width, kPanel, width, kPanel);
  }
}

template <class Products, int Degree, class T>
void backward_degree(const PolynomialBackward<T>& a, void* scratch) {
  constexpr int64_t unit = Products::kUnit;
  const PolynomialHead<T>& head = a.head;
  const int64_t width = head.width, length = head.length;
  const BackwardScratch s = backward_scratch<Products>(scratch, length, width);
  std::memset(s.dgain, 0, static_cast<size_t>(width) * sizeof(float));
  std::memset(s.dbias, 0, static_cast<size_t>(width) * sizeof(float));
  for (int64_t query = 0; query < length; query += kPanel) {
    const int64_t at = query * width / unit;
    load_panel(head.q, query, length, width, query_norm(head), s.panel);
    pack_lanes<Products>(s.panel, width, s.temporary, s.q_lanes + at);
    pack_units<Products>(s.panel, width, s.q_units + at);
    load_output_gradient<Products>(a, query, s);
    pack_lanes<Products>(s.panel, width, s.temporary, s.n_lanes + at);
    pack_units<Products>(s.panel, width, s.n_units + at);
    std::memset(s.dq + query * width, 0, static_cast<size_t>(kPanel * width) * sizeof(float));
  }
  for (int64_t block = 0; block < length; block += kBlock) {
    const int64_t rows = std::min(kBlock, length - block);
    for (int64_t r = 0; r < kBlock; r += kPanel) {
      load_panel(head.k, block + r, length, width, key_norm(head), s.panel);
      pack_rows<Products>(s.panel, width, s.k_rows + r * width / unit);
      pack_units<Products>(s.panel, width, s.temporary);
      transpose(s.temporary, kPanel / unit, width, s.k_columns + r / unit, kBlock / unit);
      load_panel(head.v, block + r, length, width, Norm{}, s.panel);
      pack_rows<Products>(s.panel, width, s.v_rows + r * width / unit);
    }
    std::memset(s.dk, 0, static_cast<size_t>(kBlock * width) * sizeof(float));
    std::memset(s.dv, 0, static_cast<size_t>(kBlock * width) * sizeof(float));
    key_block<Products, Degree>(head, s, block, rows);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = block + r;
      store_gradient(s.dk + r * width, head.k.data + row * head.k.stride, width, key_norm(head),
                     a.dk.data + row * a.dk.stride, s.dgain, s.dbias);
      for (int64_t d = 0; d < width; d += kLanes)
        store(a.dv.data + row * a.dv.stride + d, load(s.dv + r * width + d));
    }
  }
  for (int64_t query = 0; query < length; query += kPanel) {
    for (int64_t d = 0; d < width; d += kLanes) {
      for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
        transpose_16(reinterpret_cast<const Cell*>(s.dq + (query * width + d * kPanel) + lane),
                     kPanel, reinterpret_cast<Cell*>(s.panel + lane * width + d), width);
      }
    }
    for (int64_t r = 0; r < std::min(kPanel, length - query); ++r) {
      const int64_t row = query + r;
      store_gradient(s.panel + r * width, head.q.data + row * head.q.stride, width,
                     query_norm(head), a.dq.data + row * a.dq.stride, s.dgain, s.dbias);
    }
  }
  if (a.dgain != nullptr) std::memcpy(a.dgain, s.dgain, static_cast<size_t>(width) * sizeof(float));
  if (a.dbias != nullptr) std::memcpy(a.dbias, s.dbias, static_cast<size_t>(width) * sizeof(float));
}

template <class Products, class T>
void backward_head(const PolynomialBackward<T>& a, void* scratch) {
  switch (a.head.degree) {
    case 2:
      return backward_degree<Products, 2>(a, scratch);
    case 4:
      return backward_degree<Products, 4>(a, scratch);
    case 8:
      return backward_degree<Products, 8>(a, scratch);
    default:
      return backward_degree<Products, 0>(a, scratch);
  }
}

template <class Products>
size_t backward_bytes(int64_t length, int64_t width) {
  return backward_scratch<Products>(nullptr, length, width).bytes;
}
