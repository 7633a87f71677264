// SPDX-License-Identifier: Apache-2.0
// See row_kernels.hpp for the contracts; vector.inl for how this file is included.
// gelu(x) = x·(1 + tanh u)/2 = x·σ(2u), u = √(2/π)·(x + 0.044715·x³): the second form has no
// cancellation for negative x.

constexpr double kTwoRootTwoOverPi = 1.5957691216057308;
constexpr double kGeluCubic = 0.044715;

template <class A>
void glu_forward(const GluForward<A>& a, int64_t begin, int64_t end) {
  using R = Real<A>;
  using V = Vector<R>;
  constexpr auto linear_term = static_cast<R>(kTwoRootTwoOverPi),
                 cubic_term = static_cast<R>(kTwoRootTwoOverPi * kGeluCubic);
  for (int64_t row = begin; row < end; ++row) {
    const A* linear = a.in + row * 2 * a.hidden;
    const A* gate = linear + a.hidden;
    A* out = a.out + row * a.hidden;
    for_vectors<R>(
        a.hidden, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          const V x = load(gate + i, lanes);
          const V s = 1 / (1 + exponential(-x * (x * x * cubic_term + linear_term)));
          store(out + i, load(linear + i, lanes) * (x * s), lanes);
        });
  }
}

template <class A>
void glu_backward(const GluBackward<A>& a, int64_t begin, int64_t end) {
  using R = Real<A>;
  using V = Vector<R>;
  constexpr auto linear_term = static_cast<R>(kTwoRootTwoOverPi),
                 cubic_term = static_cast<R>(kTwoRootTwoOverPi * kGeluCubic);
  for (int64_t row = begin; row < end; ++row) {
    const A* linear = a.in + row * 2 * a.hidden;
    const A* gate = linear + a.hidden;
    const A* dout = a.dout + row * a.hidden;
    A* dlinear = a.din + row * 2 * a.hidden;
    A* dgate = dlinear + a.hidden;
    A* out = a.out == nullptr ? nullptr : a.out + row * a.hidden;
    for_vectors<R>(
        a.hidden, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
          const V x = load(gate + i, lanes), l = load(linear + i, lanes), d = load(dout + i, lanes);
          const V square = x * x;
          const auto s = sigmoid(x * (square * cubic_term + linear_term));
          const V gelu = x * s.value;
          const V slope = s.value + gelu * s.complement * (square * (3 * cubic_term) + linear_term);
          store(dlinear + i, d * gelu, lanes);
          store(dgate + i, d * l * slope, lanes);
          if (out != nullptr) store(out + i, l * gelu, lanes);
        });
  }
}
