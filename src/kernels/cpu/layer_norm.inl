// SPDX-License-Identifier: Apache-2.0
// See row_kernels.hpp for the contracts; vector.inl for how this file is included.

template <class S, class A>
void layer_norm_forward(const LayerNormForward<S, A>& a, int64_t begin, int64_t end) {
  using R = Real<S>;
  using V = Vector<R>;
  const int64_t width = a.width;
  for (int64_t row = begin; row < end; ++row) {
    const S* x = a.x + row * width;
    A* y = a.y + row * width;
    R total;
    if (a.delta != nullptr) {
      const A* delta = a.delta + row * width;
      S* sum = a.sum + row * width;
      total = sum_vectors<R>(
          width, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
            // What is normalised is the rounded sum, as the backward pass will find it.
            return store_rounded(sum + i, load(x + i, lanes) + load(delta + i, lanes), lanes);
          });
      x = sum;
    } else {
      total = sum_vectors<R>(
          width, [&](int64_t i, auto lanes)
                     __attribute__((always_inline)) { return load(x + i, lanes); });
    }
    const R mean = total / static_cast<R>(width);
    const R squares = sum_vectors<R>(
        width, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          const V centred = inside(load(x + i, lanes) - mean, V{}, lanes);
          return centred * centred;
        });
    const R rstd =
        1 /
        static_cast<R>(__builtin_sqrt(squares / static_cast<R>(width) + static_cast<R>(a.epsilon)));
    if (a.mean != nullptr) a.mean[row] = mean;
    if (a.rstd != nullptr) a.rstd[row] = rstd;
    for_vectors<R>(
        width, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          store(y + i,
                (load(x + i, lanes) - mean) * rstd * load(a.gain + i, lanes) +
                    load(a.bias + i, lanes),
                lanes);
        });
  }
}

template <class S, class A>
void layer_norm_backward(const LayerNormBackward<S, A>& a, int64_t begin, int64_t end) {
  using R = Real<S>;
  using V = Vector<R>;
  const int64_t width = a.width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t offset = row * width;
    const A* dy = a.dy + offset;
    const S* x = a.x + offset;
    const R mean = a.mean[row], rstd = a.rstd[row];
    V products{};  // of dy·gain with the normalised row
    const R sum = sum_vectors<R>(
        width, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          const V g = load(dy + i, lanes);
          const V normal = (load(x + i, lanes) - mean) * rstd;
          store(a.dgain + i, load(a.dgain + i, lanes) + g * normal, lanes);
          store(a.dbias + i, load(a.dbias + i, lanes) + g, lanes);
          const V scaled = g * load(a.gain + i, lanes);  // 0 past the end
          products += scaled * normal;
          return scaled;
        });
    const R mean_gradient = sum / static_cast<R>(width);
    const R mean_product = lane_sum(products) / static_cast<R>(width);
    const auto gradient = [&](int64_t i, auto lanes) __attribute__((always_inline)) {
      const V scaled = load(dy + i, lanes) * load(a.gain + i, lanes);
      const V normal = (load(x + i, lanes) - mean) * rstd;
      V dx = (scaled - mean_gradient - normal * mean_product) * rstd;
      if (a.dresidual != nullptr) dx += load(a.dresidual + offset + i, lanes);
      store(a.dx + offset + i, dx, lanes);
      if (a.dx_copy != nullptr) store(a.dx_copy + offset + i, dx, lanes);
    };
    for_vectors<R>(width, gradient);
  }
}
