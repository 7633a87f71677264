// SPDX-License-Identifier: Apache-2.0
// Forward and backward pass of both networks over all rows. Included after
// sketch_level.inl.

struct SketchLevels {
  Level level[2][2];
  size_t bytes;
};

template <class Products>
SketchLevels sketch_levels(void* packed, int64_t width, int64_t size) {
  SketchLevels s{};
  Arena arena(packed);
  for (auto& side : s.level) {
    for (int l = 0; l < 2; ++l) side[l] = take_level<Products>(arena, l == 0 ? width : size, size);
  }
  s.bytes = arena.used();
  return s;
}

template <class Products>
size_t sketch_packed_bytes(int64_t width, int64_t size) {
  return sketch_levels<Products>(nullptr, width, size).bytes;
}

/// [rows][columns], columns a multiple of 16, as left operand; strides in memory for either axis.
template <class Products>
void pack_matrix(const float* from, int64_t rows, int64_t columns, int64_t row_stride,
                 int64_t column_stride, Cell* out) {
  alignas(64) static constexpr int32_t kOrder[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                         8, 9, 10, 11, 12, 13, 14, 15};
  const __m512i places = _mm512_mullo_epi32(_mm512_load_si512(kOrder),
                                            _mm512_set1_epi32(static_cast<int>(column_stride)));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      Products::store_along(
          out + (r * columns + c) / Products::kUnit,
          _mm512_i32gather_ps(places, from + r * row_stride + c * column_stride, sizeof(float)));
    }
  }
}

template <class Products>
void sketch_pack(const SketchNetwork& network, int64_t width, int64_t size, void* packed) {
  const SketchLevels s = sketch_levels<Products>(packed, width, size);
  for (int side = 0; side < 2; ++side) {
    for (int l = 0; l < 2; ++l) {
      const Level& w = s.level[side][l];
      std::memcpy(w.gain, network.gain[side][l], static_cast<size_t>(w.in) * sizeof(float));
      std::memcpy(w.bias, network.bias[side][l], static_cast<size_t>(w.in) * sizeof(float));
      pack_matrix<Products>(network.up[side][l], w.hidden(), w.in, w.in, 1, w.up);
      pack_matrix<Products>(network.up[side][l], w.in, w.hidden(), 1, w.in, w.up_turned);
      pack_matrix<Products>(network.down[side][l], w.size, w.hidden(), w.hidden(), 1, w.down);
      pack_matrix<Products>(network.down[side][l], w.hidden(), w.size, 1, w.hidden(),
                            w.down_turned);
    }
  }
}

struct SketchScratch {
  Work work;
  Kept kept[2][2];
  Sums sums[2][2];
  float* rows;         // [64][max(in, R)]
  float* lanes[2];     // [max(in, R)][64]
  float* inner;        // [max(in, R)][64]
  float* gradient[2];  // [max(in, R)][64]
  float* cleared;      // where all of `sums` lies
  size_t cleared_bytes, bytes;
};

template <class Products>
SketchScratch sketch_scratch(void* base, int64_t width, int64_t size, bool backward) {
  constexpr int64_t unit = Products::kUnit;
  const int64_t widest = std::max(width, size), hidden = kHidden * size;
  SketchScratch s{};
  Arena arena(base);
  s.work.features = arena.take<Cell>(widest / unit * kPanel);
  s.work.chunk = arena.take<Cell>(kChunkSteps * kPanel);
  s.work.tile = arena.take<float>(Products::kGroup * kPanel);
  s.rows = arena.take<float>(kPanel * widest);
  s.inner = arena.take<float>(kPanel * widest);
  for (float*& x : s.lanes) x = arena.take<float>(kPanel * widest);
  if (backward) {
    s.work.along = arena.take<Cell>(widest * kPanel / unit);
    s.work.rows = arena.take<Cell>(kChunkSteps * kPanel);
    s.work.turned = arena.take<Cell>(kPanel / unit * size);
    for (float*& x : s.gradient) x = arena.take<float>(kPanel * widest);
    for (auto& side : s.kept) {
      for (int l = 0; l < 2; ++l) {
        const int64_t in = l == 0 ? width : size;
        side[l] = {arena.take<float>(in * kPanel), arena.take<float>(kPanel),
                   arena.take<Cell>(kPanel / unit * in), arena.take<Cell>(hidden * kPanel / unit),
                   arena.take<float>(hidden * kPanel)};
      }
    }
    const size_t before = arena.used();
    s.cleared = arena.take<float>(0);
    for (auto& side : s.sums) {
      for (int l = 0; l < 2; ++l) {
        const int64_t in = l == 0 ? width : size;
        side[l] = {arena.take<float>(in * kLanes), arena.take<float>(in * kLanes),
                   arena.take<float>(hidden * size)};
      }
    }
    s.cleared_bytes = arena.used() - before;
  }
  s.bytes = arena.used();
  return s;
}

template <class Products>
size_t sketch_forward_bytes(int64_t width, int64_t size) {
  return sketch_scratch<Products>(nullptr, width, size, false).bytes;
}

template <class Products>
size_t sketch_backward_bytes(int64_t width, int64_t size) {
  return sketch_scratch<Products>(nullptr, width, size, true).bytes;
}

/// Rows begin … end (at most 64) -> [width][64]; what is missing is zero.
template <class T>
void load_lanes(const HeadRows<const T>& from, int64_t begin, int64_t end, int64_t width,
                float* rows, float* lanes) {
  load_panel(from, begin, end, width, Norm{}, rows);
  transpose(reinterpret_cast<const Cell*>(rows), kPanel, width, reinterpret_cast<Cell*>(lanes),
            kPanel);
}

/// Both networks on a panel -> s.lanes [R][64]
template <class Products, bool Keep, class T>
void sketch_panel(const SketchLevels& levels, const HeadRows<const T>& x, int64_t begin,
                  int64_t end, int64_t width, const SketchScratch& s) {
  const float* lanes = s.lanes[1];  // of x, until the second network overwrites them
  load_lanes(x, begin, end, width, s.rows, s.lanes[1]);
  for (int side = 0; side < 2; ++side) {
    level_forward<Products, Keep>(levels.level[side][0], lanes, s.inner, s.work, s.kept[side][0]);
    level_forward<Products, Keep>(levels.level[side][1], s.inner, s.lanes[side], s.work,
                                  s.kept[side][1]);
  }
}

template <class Products, class T>
void sketch_forward(const void* packed, int64_t width, int64_t size, HeadRows<const T> x,
                    int64_t rows, HeadRows<T> out, void* scratch) {
  // only read from here on
  const SketchLevels levels = sketch_levels<Products>(const_cast<void*>(packed), width, size);
  const SketchScratch s = sketch_scratch<Products>(scratch, width, size, false);
  const float root = std::sqrt(static_cast<float>(size));
  const __m512 scale = _mm512_set1_ps(root), inverse = _mm512_set1_ps(1.0F / root);
  for (int64_t begin = 0; begin < rows; begin += kPanel) {
    const int64_t end = std::min(rows, begin + kPanel);
    sketch_panel<Products, false>(levels, x, begin, end, width, s);
    for (int64_t i = 0; i < size * kPanel; i += kLanes) {
      const __m512 product = _mm512_mul_ps(load(s.lanes[0] + i), load(s.lanes[1] + i));
      store(s.inner + i, _mm512_mul_ps(scale, tanh_of(_mm512_mul_ps(product, inverse))));
    }
    store_lanes(s.inner, size, out, begin, end, s.rows);
  }
}

/// parameter_gradients += what is in `sums`.
inline void add_sums(const SketchLevels& levels, const SketchScratch& s,
                     float* parameter_gradients) {
  float* out = parameter_gradients;
  alignas(64) Cell turned[kLanes * kLanes];
  for (int side = 0; side < 2; ++side) {
    for (int l = 0; l < 2; ++l) {
      const Level& w = levels.level[side][l];
      const Sums& sums = s.sums[side][l];
      for (int64_t i = 0; i < w.in; ++i)
        out[i] += _mm512_reduce_add_ps(load(sums.gain + i * kLanes));
      out += w.in;
      for (int64_t i = 0; i < w.in; ++i)
        out[i] += _mm512_reduce_add_ps(load(sums.bias + i * kLanes));
      out += w.in + w.hidden() * w.in;
      for (int64_t h = 0; h < w.hidden(); h += kLanes) {
        for (int64_t r = 0; r < w.size; r += kLanes) {
          transpose_16(reinterpret_cast<const Cell*>(sums.down + h * w.size + r), w.size, turned,
                       kLanes);
          for (int64_t i = 0; i < kLanes; ++i) {
            float* to = out + (r + i) * w.hidden() + h;
            store(to, _mm512_add_ps(load(to),
                                    _mm512_castsi512_ps(_mm512_load_si512(turned + i * kLanes))));
          }
        }
      }
      out += w.hidden() * w.size;
    }
  }
}

template <class Products, class T>
void sketch_backward(const void* packed, int64_t width, int64_t size, HeadRows<const T> x,
                     int64_t rows, HeadRows<const T> ds, HeadRows<T> dx, float* parameter_gradients,
                     void* scratch) {
  // only read from here on
  const SketchLevels levels = sketch_levels<Products>(const_cast<void*>(packed), width, size);
  const SketchScratch s = sketch_scratch<Products>(scratch, width, size, true);
  const __m512 one = _mm512_set1_ps(1.0F),
               inverse = _mm512_set1_ps(1.0F / std::sqrt(static_cast<float>(size)));
  std::memset(s.cleared, 0, s.cleared_bytes);
  for (int64_t begin = 0; begin < rows; begin += kPanel) {
    const int64_t end = std::min(rows, begin + kPanel);
    sketch_panel<Products, true>(levels, x, begin, end, width, s);
    load_lanes(ds, begin, end, size, s.rows, s.inner);
    for (int64_t i = 0; i < size * kPanel; i += kLanes) {
      const __m512 l = load(s.lanes[0] + i), r = load(s.lanes[1] + i);
      const __m512 t = tanh_of(_mm512_mul_ps(_mm512_mul_ps(l, r), inverse));
      const __m512 d = _mm512_mul_ps(load(s.inner + i),
                                     _mm512_mul_ps(_mm512_sub_ps(one, t), _mm512_add_ps(one, t)));
      store(s.lanes[0] + i, _mm512_mul_ps(d, r));
      store(s.lanes[1] + i, _mm512_mul_ps(d, l));
    }
    float* gradients = parameter_gradients;
    for (int side = 0; side < 2; ++side) {
      const Level &first = levels.level[side][0], &second = levels.level[side][1];
      float* first_up = gradients + 2 * first.in;
      float* second_gradients = first_up + first.hidden() * (first.in + size);
      float* second_up = second_gradients + 2 * second.in;
      level_backward<Products>(second, s.lanes[side], s.gradient[side], s.inner, second_up, s.work,
                               s.kept[side][1], s.sums[side][1]);
      level_backward<Products>(first, s.inner, s.lanes[side], s.gradient[side], first_up, s.work,
                               s.kept[side][0], s.sums[side][0]);
      gradients = second_up + second.hidden() * (second.in + size);
    }
    for (int64_t i = 0; i < width * kPanel; i += kLanes)
      store(s.gradient[0] + i, _mm512_add_ps(load(s.gradient[0] + i), load(s.gradient[1] + i)));
    store_lanes(s.gradient[0], width, dx, begin, end, s.rows);
  }
  add_sums(levels, s, parameter_gradients);
}
