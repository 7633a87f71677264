// SPDX-License-Identifier: Apache-2.0
// Vectors of POLYSKETCH_VECTOR_BYTES bytes on the compiler's vector extension: loads with
// conversion, partial loads, exp. Included once an instruction set, inside its namespace and after
// its target pragma; so no include guard and no includes here.

#define POLYSKETCH_INLINE inline __attribute__((always_inline))

constexpr int kBytes = POLYSKETCH_VECTOR_BYTES;

using VFloat __attribute__((vector_size(kBytes))) = float;
using VInt __attribute__((vector_size(kBytes))) = int32_t;
using VUint __attribute__((vector_size(kBytes))) = uint32_t;
using VShort __attribute__((vector_size(kBytes / 2))) = uint16_t;
using VDouble __attribute__((vector_size(kBytes))) = double;
using VHalfFloat __attribute__((vector_size(kBytes / 2))) = float;

template <class R>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Type = VFloat;
};
template <>
struct VectorOf<double> {
  using Type = VDouble;
};
template <class R>
using Vector = typename VectorOf<R>::Type;
template <class R>
constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(R));

template <class R>
POLYSKETCH_INLINE Vector<R> broadcast(R value) {
  return value - Vector<R>{};
}

template <class To, class From>
POLYSKETCH_INLINE To bits(From value) {
  To result;
  static_assert(sizeof(To) == sizeof(From));
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}

// How many lanes of a vector are inside the row: all of them, or the first `count`.
struct Full {};
struct Part {
  int64_t count;
};

// The compiler's own conversion of 16-bit lanes takes many instructions; these take one or two.
#if defined(__x86_64__) && POLYSKETCH_VECTOR_BYTES == 64
POLYSKETCH_INLINE VUint widen(VShort v) {
  return bits<VUint>(_mm512_maskz_cvtepu16_epi32(0xffff, bits<__m256i>(v)));
}
POLYSKETCH_INLINE VShort narrow(VUint v) {
  return bits<VShort>(_mm512_maskz_cvtepi32_epi16(0xffff, bits<__m512i>(v)));
}
#elif defined(__x86_64__) && POLYSKETCH_VECTOR_BYTES == 32
POLYSKETCH_INLINE VUint widen(VShort v) {
  return bits<VUint>(_mm256_cvtepu16_epi32(bits<__m128i>(v)));
}
POLYSKETCH_INLINE VShort narrow(VUint v) {
  const __m256i u = bits<__m256i>(v);
  return bits<VShort>(_mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1)));
}
#elif defined(__x86_64__)
POLYSKETCH_INLINE VUint widen(VShort v) {
  return bits<VUint>(_mm_unpacklo_epi16(_mm_cvtsi64_si128(bits<int64_t>(v)), _mm_setzero_si128()));
}
// signed saturation, since the unsigned one is not in every machine
POLYSKETCH_INLINE VShort narrow(VUint v) {
  const __m128i extended = _mm_srai_epi32(_mm_slli_epi32(bits<__m128i>(v), 16), 16);
  return bits<VShort>(_mm_cvtsi128_si64(_mm_packs_epi32(extended, extended)));
}
#else
POLYSKETCH_INLINE VUint widen(VShort v) { return __builtin_convertvector(v, VUint); }
POLYSKETCH_INLINE VShort narrow(VUint v) { return __builtin_convertvector(v, VShort); }
#endif

POLYSKETCH_INLINE VFloat load(const float* p, Full) {
  VFloat v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
POLYSKETCH_INLINE VDouble load(const double* p, Full) {
  VDouble v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
POLYSKETCH_INLINE VFloat load(const bf16* p, Full) {
  VShort v;
  __builtin_memcpy(&v, p, sizeof v);
  return bits<VFloat>(widen(v) << 16);
}
POLYSKETCH_INLINE void store(float* p, VFloat v, Full) { __builtin_memcpy(p, &v, sizeof v); }
POLYSKETCH_INLINE void store(double* p, VDouble v, Full) { __builtin_memcpy(p, &v, sizeof v); }

/// The upper halves after rounding to the nearest even. For results of arithmetic, whose only NaNs
/// are quiet: these stay NaN.
POLYSKETCH_INLINE VUint round_to_bf16(VFloat v) {
  const VUint u = bits<VUint>(v);
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
POLYSKETCH_INLINE VShort to_half(VFloat v) {
#ifdef POLYSKETCH_BF16_INSTRUCTIONS
  return bits<VShort>(_mm512_cvtneps_pbh(bits<__m512>(v)));
#else
  return narrow(round_to_bf16(v));
#endif
}
POLYSKETCH_INLINE void store(bf16* p, VFloat v, Full) {
  const VShort half = to_half(v);
  __builtin_memcpy(p, &half, sizeof half);
}

/// Stores and returns what a load would give back, without waiting for memory.
POLYSKETCH_INLINE VFloat store_rounded(float* p, VFloat v, Full) { return store(p, v, Full{}), v; }
POLYSKETCH_INLINE VDouble store_rounded(double* p, VDouble v, Full) {
  return store(p, v, Full{}), v;
}
POLYSKETCH_INLINE VFloat store_rounded(bf16* p, VFloat v, Full) {
  const VShort half = to_half(v);
  __builtin_memcpy(p, &half, sizeof half);
  return bits<VFloat>(widen(half) << 16);
}

/// Lanes past the end are 0.
template <class T>
POLYSKETCH_INLINE Vector<Real<T>> load(const T* p, Part part) {
  T buffer[kLanes<Real<T>>] = {};
  __builtin_memcpy(buffer, p, static_cast<size_t>(part.count) * sizeof(T));
  return load(buffer, Full{});
}
template <class T>
POLYSKETCH_INLINE void store(T* p, Vector<Real<T>> v, Part part) {
  T buffer[kLanes<Real<T>>];
  store(buffer, v, Full{});
  __builtin_memcpy(p, buffer, static_cast<size_t>(part.count) * sizeof(T));
}

template <class T>
POLYSKETCH_INLINE Vector<Real<T>> store_rounded(T* p, Vector<Real<T>> v, Part part) {
  store(p, v, part);
  return load(p, part);
}

/// v, with `other` in the lanes past the end.
template <class V>
POLYSKETCH_INLINE V inside(V v, V, Full) {
  return v;
}
template <class V>
POLYSKETCH_INLINE V inside(V v, V other, Part part) {
  for (int64_t i = part.count; i < static_cast<int64_t>(sizeof(V) / sizeof(v[0])); ++i)
    v[i] = other[i];
  return v;
}

template <class V>
POLYSKETCH_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}

POLYSKETCH_INLINE VFloat square_root(VFloat v) {
#if defined(__x86_64__) && POLYSKETCH_VECTOR_BYTES == 64
  // the unmasked form draws a false warning
  return bits<VFloat>(_mm512_maskz_sqrt_ps(0xffff, bits<__m512>(v)));
#elif defined(__x86_64__) && POLYSKETCH_VECTOR_BYTES == 32
  return bits<VFloat>(_mm256_sqrt_ps(bits<__m256>(v)));
#elif defined(__x86_64__)
  return bits<VFloat>(_mm_sqrt_ps(bits<__m128>(v)));
#else
  for (int64_t i = 0; i < kLanes<float>; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

/// Sum and greatest of the lanes, by halving: always in the same order.
template <class V>
POLYSKETCH_INLINE auto lane_sum(V v) {
  constexpr int lanes = sizeof(V) / sizeof(v[0]);
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  return v[0];
}
template <class V>
POLYSKETCH_INLINE auto lane_maximum(V v) {
  auto greatest = v[0];
  for (int i = 1; i < static_cast<int>(sizeof(V) / sizeof(v[0])); ++i)
    greatest = v[i] > greatest ? v[i] : greatest;
  return greatest;
}

/// body(i, Full or Part) over the lanes of [0, n).
template <class R, class Body>
POLYSKETCH_INLINE void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes<R> <= n; i += kLanes<R>) body(i, Full{});
  if (i < n) body(i, Part{n - i});
}

/// Σ body(i, lanes), in four chains, because one chain would wait for its own additions. Lanes past
/// the end must be 0.
template <class R, class Body>
POLYSKETCH_INLINE R sum_vectors(int64_t n, Body body) {
  Vector<R> a{}, b{}, c{}, d{};
  constexpr int64_t lanes = kLanes<R>;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a += body(i, Full{});
    b += body(i + lanes, Full{});
    c += body(i + 2 * lanes, Full{});
    d += body(i + 3 * lanes, Full{});
  }
  for (; i + lanes <= n; i += lanes) a += body(i, Full{});
  if (i < n) b += body(i, Part{n - i});
  return lane_sum((a + b) + (c + d));
}

/// exp(x) to about one unit in the last place. Above 88 it stays at exp(88); below −87 it is 0.
POLYSKETCH_INLINE VFloat exponential(VFloat x) {
  const VFloat clamped = x > 88.0f ? broadcast(88.0f) : (x < -87.0f ? broadcast(-87.0f) : x);
  // Adding 1.5·2²³ rounds to an integer, which then stands in the low bits.
  const VFloat shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const VFloat n = shifted - 12582912.0f;
  // ln 2 in two parts: the first has 9 bits, so n times it is exact
  VFloat r = clamped - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  // Minimax on [−ln2/2, ln2/2] for (exp(r) − 1 − r) / r².
  VFloat p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const VFloat power = bits<VFloat>((bits<VInt>(shifted) + (127 - 0x4b400000)) << 23);
  const VFloat result = p * power;
  return x < -87.0f ? VFloat{} : result;
}
POLYSKETCH_INLINE VDouble exponential(VDouble x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

/// 1 / (1 + exp(−x)) and its complement, each with full relative accuracy.
template <class V>
struct Sigmoid {
  V value, complement;
};
template <class V>
POLYSKETCH_INLINE Sigmoid<V> sigmoid(V x) {
  const V e = exponential(-x);
  const V value = 1 / (1 + e);
  return {value, e * value};
}
