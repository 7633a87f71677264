// SPDX-License-Identifier: Apache-2.0
// Forward pass of one head. Blocks of 192 queries pass over chunks of 256 keys; within them a group
// of queries at a time takes its scores, powers and weighted values through registers and the
// first-level cache.

constexpr int64_t kChunkPanels = 4;  // keys that pass between two visits of the sums in memory: 256

struct ForwardScratch {
  Cell* k_lanes;    // [panels][D / U][64]
  Cell* v_units;    // [panels · 64 / U][D]
  float* panel;     // [64][D]
  Cell* temporary;  // [64][D / U]
  Cell* q_rows;     // [192][D / U]
  float* sums;      // [192][D] of weighted values
  float* weights;   // [192][16] partial row sums
  Cell* tile;       // [group][256 / U] weights of a group
  size_t bytes;
};

template <class Products>
ForwardScratch forward_scratch(void* base, int64_t length, int64_t width) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t panels = (length + kPanel - 1) / kPanel;
  Arena arena(base);
  ForwardScratch s{};
  s.k_lanes = arena.take<Cell>(panels * kPanel * width / unit);
  s.v_units = arena.take<Cell>(panels * kPanel * width / unit);
  s.panel = arena.take<float>(kPanel * width);
  s.temporary = arena.take<Cell>(kPanel * width / unit);
  s.q_rows = arena.take<Cell>(kBlock * width / unit);
  s.sums = arena.take<float>(kBlock * width);
  s.weights = arena.take<float>(kBlock * kLanes);
  s.tile = arena.take<Cell>(Products::kGroup * kChunkPanels * kPanel / unit);
  s.bytes = arena.used();
  return s;
}

template <class T>
Norm query_norm(const PolynomialHead<T>& head) {
  return {head.gain, head.bias, head.epsilon, 1};
}
template <class T>
Norm key_norm(const PolynomialHead<T>& head) {
  return {head.gain, head.bias, head.epsilon, head.key_scale};
}

/// Zero where a value is not finite: a hidden position has weight zero, and 0·NaN would spoil rows
/// that do not see it. Returns whether there was any.
inline bool clean_panel(float* x, int64_t width) {
  __mmask16 any = 0;
  for (int64_t i = 0; i < kPanel * width; i += kLanes) {
    const __m512 value = load(x + i);
    // quiet NaN, both infinities, signalling NaN
    const __mmask16 bad = _mm512_fpclass_ps_mask(value, 0x99);
    any = static_cast<__mmask16>(any | bad);
    if (bad) store(x + i, _mm512_mask_mov_ps(value, bad, _mm512_setzero_ps()));
  }
  return any != 0;
}

/// Weights of a group of queries from `row` on and 16·N keys from `key` on.
template <class Products, int Degree, int N, class T>
void weigh(const PolynomialHead<T>& head, const ForwardScratch& s, const Cell* q, int64_t row,
           int64_t key, bool masked, float* row_sums, Cell* tile) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t cells = head.width / unit;
  __m512 scores[Products::kGroup][N];
  product<Products, Products::kGroup, N>(q, cells, s.k_lanes + key * cells, kPanel, cells, scores);
#pragma GCC unroll 6
  for (int m = 0; m < Products::kGroup; ++m) {
    __m512 sum = load(row_sums + m * kLanes);
    const int64_t query = row + m;
    const int64_t start =
        head.starts == nullptr ? 0 : head.starts[std::min(query, head.length - 1)];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      __m512 odd, weight;
      powers<Degree>(scores[m][n], head.degree, odd, weight);
      if (masked)
        weight = _mm512_maskz_mov_ps(lanes_between(start, query, key + n * kLanes), weight);
      sum = _mm512_add_ps(sum, weight);
      Products::store_along(tile + (m * kChunkPanels * kPanel + n * kLanes) / unit, weight);
    }
    store(row_sums + m * kLanes, sum);
  }
}

template <class Products, int Degree, class T>
void forward_group(const PolynomialHead<T>& head, const ForwardScratch& s, int64_t row,
                   int64_t last_row, int64_t slot, int64_t chunk) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t width = head.width;
  const int64_t first_key = head.starts == nullptr ? 0 : head.starts[row];
  // below it a key is hidden from some of the group
  const int64_t cut = head.starts == nullptr ? 0 : head.starts[last_row];
  const int64_t first = std::max(chunk, first_key / kPanel),
                last = std::min(chunk + kChunkPanels - 1, last_row / kPanel);
  if (first > last) return;
  const Cell* q = s.q_rows + slot * width / unit;
  float* row_sums = s.weights + slot * kLanes;
  for (int64_t panel = first; panel <= last; ++panel) {
    const int64_t key = panel * kPanel;
    Cell* tile = s.tile + (panel - first) * kPanel / unit;
    const bool masked = key + kPanel > row + 1 || key < cut;
    // Registers beyond the first that are wanted; an even number in all where products have tiles,
    // which take 32 keys at once.
    switch (std::min<int64_t>((last_row - key) / kLanes, 3) | (Products::kTiles ? 1 : 0)) {
      case 0:
        weigh<Products, Degree, 1>(head, s, q, row, key, masked, row_sums, tile);
        break;
      case 1:
        weigh<Products, Degree, 2>(head, s, q, row, key, masked, row_sums, tile);
        break;
      case 2:
        weigh<Products, Degree, 3>(head, s, q, row, key, masked, row_sums, tile);
        break;
      default:
        weigh<Products, Degree, 4>(head, s, q, row, key, masked, row_sums, tile);
    }
  }
  const int64_t keys = std::min((last + 1) * kPanel, last_row + 1) - first * kPanel;
  accumulate<Products, Products::kGroup>(
      s.tile, kChunkPanels * kPanel / unit, s.v_units + first * kPanel / unit * width, width,
      rounded_up((keys + unit - 1) / unit, Products::kStep), s.sums + slot * width, width, width);
}

/// Rows that see a value that is not finite get NaN in its column.
template <class T>
void spoil(const PolynomialForward<T>& a, int64_t first_key, int64_t begin, int64_t end) {
  for (int64_t d = 0; d < a.head.width; ++d) {
    int64_t last_bad = -1;
    for (int64_t t = first_key; t < end; ++t) {
      float value;
      if constexpr (std::is_same_v<T, float>) {
        value = a.head.v.data[t * a.head.v.stride + d];
      } else {
        value = to_float(a.head.v.data[t * a.head.v.stride + d]);
      }
      if (!std::isfinite(value)) last_bad = t;
      const int64_t start = a.head.starts == nullptr ? 0 : a.head.starts[t];
      if (t < begin || last_bad < start) continue;
      if constexpr (std::is_same_v<T, float>) {
        a.output.data[t * a.output.stride + d] = std::numeric_limits<float>::quiet_NaN();
      } else {
        a.output.data[t * a.output.stride + d] = bf16{0x7fc0};
      }
    }
  }
}

template <class Products, int Degree, class T>
void forward_degree(const PolynomialForward<T>& a, int64_t begin, int64_t end, void* scratch) {
  constexpr int64_t unit = Products::kUnit;
  const PolynomialHead<T>& head = a.head;
  const int64_t width = head.width;
  const ForwardScratch s = forward_scratch<Products>(scratch, end, width);
  const int64_t first_key = head.starts == nullptr ? 0 : head.starts[begin];
  bool bad_values = false;
  for (int64_t panel = first_key / kPanel; panel * kPanel < end; ++panel) {
    load_panel(head.k, panel * kPanel, end, width, key_norm(head), s.panel);
    pack_lanes<Products>(s.panel, width, s.temporary, s.k_lanes + panel * kPanel * width / unit);
    load_panel(head.v, panel * kPanel, end, width, Norm{}, s.panel);
    bad_values |= clean_panel(s.panel, width);
    pack_units<Products>(s.panel, width, s.v_units + panel * kPanel * width / unit);
  }
  for (int64_t block = begin; block < end; block += kBlock) {
    const int64_t rows = std::min(kBlock, end - block);
    for (int64_t r = 0; r < rows; r += kPanel) {
      load_panel(head.q, block + r, end, width, query_norm(head), s.panel);
      pack_rows<Products>(s.panel, width, s.q_rows + r * width / unit);
    }
    std::memset(s.sums, 0, static_cast<size_t>(kBlock * width) * sizeof(float));
    std::memset(s.weights, 0, static_cast<size_t>(kBlock * kLanes) * sizeof(float));
    const int64_t block_start = head.starts == nullptr ? 0 : head.starts[block];
    for (int64_t chunk = block_start / kPanel; chunk * kPanel < block + rows;
         chunk += kChunkPanels) {
      for (int64_t slot = 0; slot < rows; slot += Products::kGroup) {
        forward_group<Products, Degree>(head, s, block + slot,
                                        std::min(block + slot + Products::kGroup, block + rows) - 1,
                                        slot, chunk);
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float divisor =
          head.normaliser_offset + _mm512_reduce_add_ps(load(s.weights + r * kLanes));
      const __m512 inverse = _mm512_set1_ps(divisor == 0 ? 0 : 1 / divisor);
      a.normaliser[block + r] = divisor;
      T* out = a.output.data + (block + r) * a.output.stride;
      for (int64_t d = 0; d < width; d += kLanes)
        store(out + d, _mm512_mul_ps(load(s.sums + r * width + d), inverse));
    }
  }
  if (bad_values) spoil(a, first_key, begin, end);
}

template <class Products, class T>
void forward_head(const PolynomialForward<T>& a, int64_t begin, int64_t end, void* scratch) {
  switch (a.head.degree) {
    case 2:
      return forward_degree<Products, 2>(a, begin, end, scratch);
    case 4:
      return forward_degree<Products, 4>(a, begin, end, scratch);
    case 8:
      return forward_degree<Products, 8>(a, begin, end, scratch);
    default:
      return forward_degree<Products, 0>(a, begin, end, scratch);
  }
}

template <class Products>
size_t forward_bytes(int64_t length, int64_t width) {
  return forward_scratch<Products>(nullptr, length, width).bytes;
}
