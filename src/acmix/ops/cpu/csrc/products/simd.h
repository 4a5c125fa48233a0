// Vectors of one instruction set, by GCC vector extensions. This and the other kernel headers are compiled once for
// each instruction set, in a namespace of its own: no inline function may be shared between those builds.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace acmix::ACMIX_ISA {

// Registers bound the tiles: of window cells or channels for each of tile_rows rows of pixels, of vectors for
// tile_outputs outputs, of sums and vectors of the projection, and of rows and outputs of a 3x3 kernel that reads its
// input once for all rows; 1 row where nobody measured that more pay.
#if defined(__AVX512F__)
constexpr int vector_bytes = 64, tile_channels = 8, tile_cells = 7, tile_vectors = 6;
constexpr int projected_sums = 24, projected_vectors = 4, convolved_rows = 4, convolved_outputs = 4;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, tile_channels = 4, tile_cells = 4, tile_vectors = 3;
constexpr int projected_sums = 12, projected_vectors = 3, convolved_rows = 4, convolved_outputs = 2;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, tile_channels = 8, tile_cells = 7, tile_vectors = 6;
constexpr int projected_sums = 24, projected_vectors = 4, convolved_rows = 4, convolved_outputs = 4;
#else
constexpr int vector_bytes = 16, tile_channels = 4, tile_cells = 4, tile_vectors = 3;
constexpr int projected_sums = 12, projected_vectors = 3, convolved_rows = 1, convolved_outputs = 1;
#endif
constexpr int tile_rows = 3, tile_outputs = 4, most_projected = 8;

// Whether products of matrices are computed in tiles of AMX (tiles.h).
#if defined(__AMX_BF16__)
template <class T>
constexpr bool in_tiles = sizeof(T) == sizeof(float);
#else
template <class T>
constexpr bool in_tiles = false;
#endif

// Whether a lane of float32 may hold a pair of bfloat16 numbers, whose products with those of another one instruction
// adds to a sum in float32.
#if defined(__AVX512BF16__)
template <class T>
constexpr bool in_pairs = sizeof(T) == sizeof(float);
#else
template <class T>
constexpr bool in_pairs = false;
#endif

template <class T>
struct Bits;
template <>
struct Bits<float> {
  using type = int32_t;
};
template <>
struct Bits<double> {
  using type = int64_t;
};

template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(vector_bytes)));
  typedef T unaligned __attribute__((vector_size(vector_bytes), aligned(sizeof(T)), may_alias));
  typedef typename Bits<T>::type integer __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
static inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(from);
}

// A value of which the compiler knows nothing, in a register.
template <class V>
static inline V opaque(V value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#elif defined(__aarch64__)
  asm("" : "+w"(value));
#endif
  return value;
}

// A load that stays in a register: the compiler would rather load a value again for each of its uses.
template <class T>
static inline Vector<T> load_once(const T* from) {
  return opaque(load(from));
}

template <class T>
static inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(to) = value;
}

// Lanes [first, last) of a register, lane l at to + l.
template <class T>
static inline void store_lanes(T* to, Vector<T> value, int64_t first, int64_t last) {
  if (last - first == lanes<T>) {
    store(to, value);
    return;
  }
#if defined(__AVX512F__)
  const unsigned mask = (1u << last) - (1u << first);
  if constexpr (sizeof(T) == sizeof(float))
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), (__m512)value);
  else
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), (__m512d)value);
#else
  typename VectorOf<T>::integer lane;
  for (int l = 0; l < lanes<T>; ++l) lane[l] = l;
  using Index = typename Bits<T>::type;
  const auto stored = (lane >= static_cast<Index>(first)) & (lane < static_cast<Index>(last));
  store(to, stored ? value : load(to));
#endif
}

template <class T>
static inline Vector<T> splat(T value) {
  // Not 0 + value, which would turn -0 into 0 and so cost an addition.
  return value - Vector<T>{};
}

// b where either is not a number. With a constant a GCC would compare and blend, which is slower: make it opaque.
template <class T>
static inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// a where either is not a number.
template <class T>
static inline Vector<T> smaller(Vector<T> a, Vector<T> b) {
  return b < a ? b : a;
}

// 2^-drop for large drops: beside the largest weight, 1, it is nothing, and smaller ones times a value would be
// denormal numbers, which are slow.
template <class T>
constexpr double largest_drop = sizeof(T) == sizeof(float) ? 100 : 960;

// Minimax polynomials of 2^x on [-1/2, 1/2], by falling powers, that are 1 at 0: the weight of a key that dominates is
// 1, its slope 0. Their relative errors are 9e-8, 1e-4 (as exact as bfloat16 needs) and 3e-18.
template <class T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr float exact[] = {1.326472714e-3f, 9.67151264e-3f, 5.550733743e-2f,
                                    0.2402224209f,   0.6931469776f,  1.f};
  static constexpr float rough[] = {5.500905778e-2f, 0.242210975f, 0.693282898f, 1.f};
};
template <>
struct Exp2<double> {
  static constexpr double exact[] = {4.43528189211794205e-10, 7.07410561349942884e-9, 1.01781980271126593e-7,
                                     1.32154330896719558e-6,  1.52527334899754529e-5, 1.54035304625144511e-4,
                                     1.33335581467899354e-3,  9.61812910758833522e-3, 5.55041086648199215e-2,
                                     0.240226506959101562,    0.69314718055994533,    1.};
};

// Each x becomes 2^-(x scale), x scale in [0, largest_drop]. NaN of any bits stays NaN. The rounding trick, which
// leaves the exponent in the lowest bits of a sum, needs IEEE arithmetic: never compile with -ffast-math. All at once,
// as each is a long chain of operations.
template <class T, int count, int terms>
static inline void exp2_negated(Vector<T> (&x)[count], T scale, const T (&polynomial)[terms]) {
  using Integer = typename VectorOf<T>::integer;
  constexpr int digits = sizeof(T) == sizeof(float) ? 23 : 52, bias = sizeof(T) == sizeof(float) ? 127 : 1023;
  constexpr T shift = static_cast<T>(3ll << (digits - 1)) + bias;
  Vector<T> shifted[count], p[count];
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) shifted[i] = shift - x[i] * scale;
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) x[i] = (shift - shifted[i]) - x[i] * scale;
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) p[i] = polynomial[0] * x[i] + polynomial[1];
#pragma GCC unroll 16
  for (int t = 2; t < terms; ++t)
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) p[i] = p[i] * x[i] + polynomial[t];
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) x[i] = p[i] * (Vector<T>)((Integer)shifted[i] << digits);
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }

// Hands out parts of one block of scratch; a first pass without memory only measures.
template <class T>
struct Arena {
  T* memory = nullptr;
  int64_t used = 0;

  T* take(int64_t count) {
    T* part = memory ? memory + used : nullptr;
    used += round_up(count, 64 / static_cast<int64_t>(sizeof(T)));
    return part;
  }
};

}  // namespace acmix::ACMIX_ISA
