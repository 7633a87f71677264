// SPDX-License-Identifier: Apache-2.0
// See row_kernels.hpp for the contracts; vector.inl for how this file is included.

/// Numbers of a row that are handled while they lie in the first-level cache: their maximum, then
/// their exponentials.
constexpr int64_t kSoftmaxBlock = 1024;

/// Σ exp(z − maximum) so far, and the maximum it refers to.
template <class R>
struct RunningSoftmax {
  R maximum, sum;
};

/// z = logits + bias of a block goes to `z`; returns its greatest.
template <class A>
POLYSKETCH_INLINE Real<A> block_logits(const A* logits, const Real<A>* bias, Real<A>* z,
                                       int64_t n) {
  using R = Real<A>;
  const auto lowest = broadcast(-static_cast<R>(__builtin_inf()));
  Vector<R> greatest = lowest;
  for_vectors<R>(
      n, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
        Vector<R> value = load(logits + i, lanes);
        if (bias != nullptr) value += load(bias + i, lanes);
        store(z + i, value, lanes);
        greatest = maximum(greatest, inside(value, lowest, lanes));
      });
  return lane_maximum(greatest);
}

/// z becomes exp(z − shift); returns the sum.
template <class R>
POLYSKETCH_INLINE R block_exponentials(R* z, R shift, int64_t n) {
  return sum_vectors<R>(
      n, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
        const auto e = exponential(load(z + i, lanes) - shift);
        store(z + i, e, lanes);
        return inside(e, Vector<R>{}, lanes);
      });
}

template <class R>
POLYSKETCH_INLINE R scalar_exponential(R x) {
  return exponential(broadcast(x))[0];
}

/// One block more. Leaves exp(z − state.maximum) in z.
template <class A>
POLYSKETCH_INLINE void take_block(RunningSoftmax<Real<A>>& state, const A* logits,
                                  const Real<A>* bias, Real<A>* z, int64_t n) {
  const Real<A> greatest = block_logits(logits, bias, z, n);
  if (greatest > state.maximum) {
    state.sum *= scalar_exponential(state.maximum - greatest);
    state.maximum = greatest;
  }
  state.sum += block_exponentials(z, state.maximum, n);
}

template <class A>
POLYSKETCH_INLINE Real<A> target_logit(const CrossEntropy<A>& a, const A* logits, int64_t target) {
  const Real<A> value = to_real(logits[target]);
  return a.bias == nullptr ? value : value + a.bias[target];
}

template <class A>
POLYSKETCH_INLINE void clear(A* row, int64_t n) {
  __builtin_memset(row, 0, static_cast<size_t>(n) * sizeof(A));
}

template <class A>
void cross_entropy_row(const CrossEntropy<A>& a, int64_t row, Real<A>* scratch) {
  using R = Real<A>;
  const int64_t n = a.vocabulary, target = a.targets[row];
  A* logits = a.logits + row * a.row_stride;
  if (target < 0 || target >= n) {
    a.loss[row] = 0;
    clear(logits, n);
    return;
  }
  // Behind the exponentials of the row: the maximum that each block's refer to.
  R* shifts = scratch + n;
  RunningSoftmax<R> state{-static_cast<R>(__builtin_inf()), 0};
  for (int64_t i = 0, block = 0; i < n; i += kSoftmaxBlock, ++block) {
    take_block(state, logits + i, a.bias == nullptr ? nullptr : a.bias + i, scratch + i,
               n - i < kSoftmaxBlock ? n - i : kSoftmaxBlock);
    shifts[block] = state.maximum;
  }
  const R aim = target_logit(a, logits, target);
  a.loss[row] =
      static_cast<R>(__builtin_log(static_cast<double>(state.sum))) + (state.maximum - aim);
  const R scale = a.scale / state.sum;
  for (int64_t start = 0, block = 0; start < n; start += kSoftmaxBlock, ++block) {
    const R factor = shifts[block] == state.maximum
                         ? scale
                         : scale * scalar_exponential(shifts[block] - state.maximum);
    const R* e = scratch + start;
    A* out = logits + start;
    R* dbias = a.dbias + (a.dbias == nullptr ? 0 : start);
    const int64_t count = n - start < kSoftmaxBlock ? n - start : kSoftmaxBlock;
    if (a.dbias == nullptr) {
      for_vectors<R>(
          count, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
            store(out + i, load(e + i, lanes) * factor, lanes);
          });
    } else {
      for_vectors<R>(
          count, [&](int64_t i, auto lanes) __attribute__((always_inline)) {
            const auto gradient = load(e + i, lanes) * factor;
            store(out + i, gradient, lanes);
            store(dbias + i, load(dbias + i, lanes) + gradient, lanes);
          });
    }
  }
  const int64_t block = target / kSoftmaxBlock;
  const R probability =
      scratch[target] * (scale * scalar_exponential(shifts[block] - state.maximum));
  from_real(logits[target], probability - a.scale);
  if (a.dbias != nullptr) a.dbias[target] -= a.scale;
}

template <class A>
void cross_entropy(const CrossEntropy<A>& a, int64_t begin, int64_t end) {
  const int64_t blocks = (a.vocabulary + kSoftmaxBlock - 1) / kSoftmaxBlock;
  const Scratch<Real<A>> scratch(a.vocabulary + blocks);
  for (int64_t row = begin; row < end; ++row) cross_entropy_row(a, row, scratch.data());
}

template <class A>
void cross_entropy_loss(const CrossEntropy<A>& a, int64_t begin, int64_t end) {
  using R = Real<A>;
  R block[kSoftmaxBlock];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = a.vocabulary, target = a.targets[row];
    if (target < 0 || target >= n) {
      a.loss[row] = 0;
      continue;
    }
    const A* logits = a.logits + row * a.row_stride;
    RunningSoftmax<R> state{-static_cast<R>(__builtin_inf()), 0};
    for (int64_t i = 0; i < n; i += kSoftmaxBlock) {
      take_block(state, logits + i, a.bias == nullptr ? nullptr : a.bias + i, block,
                 n - i < kSoftmaxBlock ? n - i : kSoftmaxBlock);
    }
    a.loss[row] = static_cast<R>(__builtin_log(static_cast<double>(state.sum))) +
                  (state.maximum - target_logit(a, logits, target));
  }
}
