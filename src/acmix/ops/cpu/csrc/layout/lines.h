// Rows of many channels between tensors of any strides and dtype and scratch lines of the compute type.
#pragma once

#include <type_traits>

#include "problem.h"
#include "products/simd.h"

namespace acmix::ACMIX_ISA {

#if defined(__aarch64__)
using Half = __fp16;
#else
using Half = _Float16;
#endif

struct Brain {
  uint16_t bits;
};
// Two of them, neighbours, in the place of a float32.
struct BrainPair {
  Brain first, second;
};

template <class T, class E>
static inline T widen(E value) {
  return static_cast<T>(value);
}
template <>
inline float widen<float, Brain>(Brain value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

template <>
inline float widen<float, BrainPair>(BrainPair value) {
  float result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

template <class E, class T>
static inline E narrow(T value) {
  return static_cast<E>(value);
}
template <>
inline Brain narrow<Brain, float>(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(value == value ? rounded : 0x7fc0)};
}

// Transpose of an L x L block of registers in log2(L) rounds of interleaving.
template <class T>
static inline void transpose(Vector<T> (&block)[lanes<T>]) {
  constexpr int count = lanes<T>;
  typename VectorOf<T>::integer low, high;
#pragma GCC unroll 16
  for (int i = 0; i < count; ++i) {
    low[i] = i / 2 + (i % 2) * count;
    high[i] = low[i] + count / 2;
  }
#pragma GCC unroll 4
  for (int round = 1; round < count; round *= 2) {
    Vector<T> next[count];
#pragma GCC unroll 16
    for (int i = 0; i < count / 2; ++i) {
      next[2 * i] = __builtin_shuffle(block[i], block[i + count / 2], low);
      next[2 * i + 1] = __builtin_shuffle(block[i], block[i + count / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) block[i] = next[i];
  }
}

// Fewer numbers than fill a register of T.
template <class T, class E>
static inline void copy_part(const E* from, int64_t size, E* to) {
#pragma GCC unroll 4
  for (int part = lanes<T> / 2; part > 0; part /= 2) {
    if (!(size & part)) continue;
    std::memcpy(to, from, static_cast<size_t>(part) * sizeof(E));
    from += part;
    to += part;
  }
}

template <class T, class E>
static inline Vector<T> load_wide(const E* from) {
  if constexpr (sizeof(T) == sizeof(E)) {
    // Pairs lie at any even address.
    Vector<T> values;
    std::memcpy(&values, from, sizeof(values));
    return values;
  } else if constexpr (std::is_same_v<E, Brain>) {
    // Widened in registers: a load of what two narrower ones have just stored would wait for both.
    typedef uint16_t Halves __attribute__((vector_size(vector_bytes / 2)));
    typedef uint32_t Words __attribute__((vector_size(vector_bytes)));
    Halves bits;
    std::memcpy(&bits, from, sizeof(bits));
    return (Vector<T>)(__builtin_convertvector(bits, Words) << 16);
#if defined(__AVX512F__)
  } else if constexpr (std::is_same_v<T, float>) {
    __m256i bits;
    std::memcpy(&bits, from, sizeof(bits));
    return (Vector<T>)_mm512_maskz_cvtph_ps(0xffff, bits);
#endif
  } else {
    alignas(vector_bytes) T values[lanes<T>];
    for (int i = 0; i < lanes<T>; ++i) values[i] = widen<T>(from[i]);
    return load(values);
  }
}

// At most `count` numbers, zeros behind them.
template <class T, class E>
static inline Vector<T> load_some(const E* from, int64_t count) {
  if (count >= lanes<T>) return load_wide<T>(from);
  E some[lanes<T>] = {};
  copy_part<T>(from, count, some);
  return load_wide<T>(some);
}

template <class T, class E>
static inline void store_narrow(E* to, Vector<T> values) {
  if constexpr (sizeof(T) == sizeof(E)) {
    std::memcpy(to, &values, sizeof(values));
    return;
  }
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<E, Brain>) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)values);
    std::memcpy(to, &rounded, sizeof(rounded));
    return;
  }
#endif
  for (int l = 0; l < lanes<T>; ++l) to[l] = narrow<E, T>(values[l]);
}

// At most `count` numbers.
template <class T, class E>
static inline void store_some(E* to, Vector<T> values, int64_t count) {
  if (count >= lanes<T>) return store_narrow<T>(to, values);
  E some[lanes<T>];
  store_narrow<T>(some, values);
  copy_part<T>(some, count, to);
}

// Of each lane of two registers of pairs the first (half 0) or the second numbers (1) as a pair.
template <class T>
struct JoinHalves;

#if defined(__AVX512BF16__)
// Of each lane of two registers a pair.
static inline Vector<float> join_pairs(Vector<float> first, Vector<float> second) {
  typedef int16_t Halves __attribute__((vector_size(vector_bytes)));
  Halves alternate;
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) alternate[i] = static_cast<int16_t>(i / 2 + i % 2 * 16);
  const Halves rounded = (Halves)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  return (Vector<float>)__builtin_shuffle(rounded, alternate);
}

template <>
struct JoinHalves<float> {
  typedef int16_t Halves __attribute__((vector_size(vector_bytes)));
  Halves places;

  explicit JoinHalves(int half) {
    for (int i = 0; i < 32; ++i) places[i] = static_cast<int16_t>(i / 2 * 2 + i % 2 * 32 + half);
  }
  Vector<float> operator()(Vector<float> first, Vector<float> second) const {
    return (Vector<float>)__builtin_shuffle((Halves)first, (Halves)second, places);
  }
};
#endif

// ReLU of numbers, or of those in pairs; what is not a number stays that.
template <class T, class E = T>
static inline Vector<T> rectify(Vector<T> values) {
  if constexpr (std::is_same_v<E, BrainPair>) {
    typedef int16_t Halves __attribute__((vector_size(vector_bytes)));
    // As integers what is negative lies up to that of -inf, and beyond it NaN with a sign.
    constexpr int16_t least_infinite = -128;
    const Halves halves = (Halves)values;
    return (Vector<T>)(halves & (halves > least_infinite));
  } else {
    return larger<T>(opaque(Vector<T>{}), values);
  }
}

// Of whole registers, in place.
template <class T>
static inline void rectify_run(T* cells, int64_t size) {
  for (int64_t x = 0; x < size; x += lanes<T>) store(cells + x, rectify<T>(load(cells + x)));
}

// Rows of channels: `row` from row to row, `pitch` from channel to channel.
template <class T>
struct Rows {
  T* data;
  int64_t row, pitch;
};

// Cells of a line in scratch by their remainder modulo the stride ("phases", `phase_pitch` apart), those of `members`
// of `interleave` images in turn; every register of each phase.
struct Weave {
  int64_t stride, interleave, phase_pitch, members;
};

// Call f(place, lanes) for every register of a line: lanes[i] is where the pixel of its lane i lies, `batch` from image
// to image and `column` from column to column, or null where there is none.
template <class T, class E, class F>
static inline void for_registers(E* pixels, int64_t batch, int64_t column, int64_t width, const Weave& weave,
                                 const F& f) {
  constexpr int count = lanes<T>;
  for (int64_t phase = 0; phase < weave.stride; ++phase) {
    int64_t x = phase, g = 0;
    for (int64_t place = 0; place < weave.phase_pitch; place += count) {
      E* lane[count];
      for (int i = 0; i < count; ++i) {
        lane[i] = x < width && g < weave.members ? pixels + g * batch + x * column : nullptr;
        if (++g < weave.interleave) continue;
        g = 0;
        x += weave.stride;
      }
      f(phase * weave.phase_pitch + place, lane);
    }
  }
}

// The channels, adjacent in memory, of a register of pixels, zeros where there is none; the next ones are `ahead`.
template <class T, bool rectified = false, class E>
static void load_pixels(const E* const* lane, int64_t channels, int64_t ahead, T* cells, int64_t pitch) {
  constexpr int count = lanes<T>;
  const int64_t whole = channels / count * count;
  for (int64_t j = 0; j < whole; j += count) {
    Vector<T> block[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) {
      block[i] = Vector<T>{};
      if (!lane[i]) continue;
      block[i] = load_wide<T>(lane[i] + j);
      // A pixel's line lies alone in memory; hardware does not foresee the next ones.
      __builtin_prefetch(lane[i] + ahead + j);
      if constexpr (rectified) block[i] = rectify<T, E>(block[i]);
    }
    transpose<T>(block);
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) store(cells + (j + i) * pitch, block[i]);
  }
  for (int64_t j = whole; j < channels; ++j) {
    for (int i = 0; i < count; ++i) cells[j * pitch + i] = lane[i] ? widen<T>(lane[i][j]) : T(0);
    if constexpr (rectified) store(cells + j * pitch, rectify<T, E>(load(cells + j * pitch)));
  }
}

// A line of pixels.
template <class T, class E>
static void load_transposed(const E* from, int64_t batch, int64_t column, int64_t channels, int64_t width,
                            const Weave& weave, T* to, int64_t pitch) {
  const int64_t ahead = lanes<T> * weave.stride / weave.interleave * column;
  for_registers<T>(from, batch, column, width, weave, [&](int64_t place, const E* const* lane) {
    load_pixels<T>(lane, channels, ahead, to + place, pitch);
  });
}

// A run of any length by whole registers, then halves: rows of a map are short.
template <class T>
static inline void copy_run(const T* from, int64_t size, T* to) {
  int64_t x = 0;
  for (; x + lanes<T> <= size; x += lanes<T>) store(to + x, load(from + x));
  copy_part<T>(from + x, size - x, to + x);
}

// A run of another type, or of the same; `from` may be read up to the next full register.
template <class T, class E>
static inline void store_run(const T* from, int64_t size, E* to) {
  if constexpr (sizeof(T) == sizeof(E)) return copy_run(from, size, reinterpret_cast<T*>(to));
  for (int64_t x = 0; x < size; x += lanes<T>) store_some<T>(to + x, load(from + x), size - x);
}

template <class T, class E>
static void load_lines_of(const E* from, int64_t channel, int64_t column, int64_t channels, int64_t width, T* to,
                          int64_t pitch) {
  if (column == 1) {
    for (int64_t j = 0; j < channels; ++j)
      if constexpr (sizeof(T) == sizeof(E))
        copy_run(reinterpret_cast<const T*>(from + j * channel), width, to + j * pitch);
      else
        for (int64_t x = 0; x < width; x += lanes<T>)
          store(to + j * pitch + x, load_some<T>(from + j * channel + x, width - x));
  } else {
    for (int64_t j = 0; j < channels; ++j)
      for (int64_t x = 0; x < width; ++x) to[j * pitch + x] = widen<T>(from[j * channel + x * column]);
  }
}

// The way back.
template <class T, class E>
static void store_transposed(const T* from, int64_t pitch, E* to, int64_t batch, int64_t column, int64_t channels,
                             int64_t width, const Weave& weave) {
  constexpr int count = lanes<T>;
  const int64_t whole = channels / count * count, ahead = count * weave.stride / weave.interleave * column;
  for_registers<T>(to, batch, column, width, weave, [&](int64_t place, E* const* lane) {
    const T* cells = from + place;
    for (int64_t j = 0; j < whole; j += count) {
      Vector<T> block[count];
#pragma GCC unroll 16
      for (int i = 0; i < count; ++i) block[i] = load(cells + (j + i) * pitch);
      transpose<T>(block);
#pragma GCC unroll 16
      for (int i = 0; i < count; ++i) {
        if (!lane[i]) continue;
        if constexpr (sizeof(T) == sizeof(E)) {
          store(reinterpret_cast<T*>(lane[i] + j), block[i]);
          __builtin_prefetch(lane[i] + ahead + j, 1);
        } else {
          store_narrow<T>(lane[i] + j, block[i]);
        }
      }
    }
    for (int64_t j = whole; j < channels; ++j)
      for (int i = 0; i < count; ++i)
        if (lane[i]) lane[i][j] = narrow<E, T>(cells[j * pitch + i]);
  });
}

template <class T, class E>
static void store_lines_of(const T* from, int64_t pitch, E* to, int64_t channel, int64_t column, int64_t channels,
                           int64_t width) {
  if (column == 1) {
    for (int64_t j = 0; j < channels; ++j) store_run(from + j * pitch, width, to + j * channel);
  } else {
    for (int64_t j = 0; j < channels; ++j)
      for (int64_t x = 0; x < width; ++x) to[j * channel + x * column] = narrow<E, T>(from[j * pitch + x]);
  }
}

// Cells of a line by their remainder modulo the stride ("phase"): cell x goes to position x / stride of its phase,
// phases `pitch` apart.
template <class T>
static inline void split_phases(const T* line, int64_t width, int64_t stride, T* to, int64_t pitch) {
  if (stride != 2) {
    for (int64_t phase = 0; phase < least(stride, width); ++phase) {
      T* cells = to + phase * pitch;
      for (int64_t x = phase; x < width; x += stride) *cells++ = line[x];
    }
    return;
  }
  constexpr int count = lanes<T>;
  typename VectorOf<T>::integer evens, odds;
  for (int i = 0; i < count; ++i) {
    evens[i] = 2 * i;
    odds[i] = 2 * i + 1;
  }
  T *even = to, *odd = to + pitch;
  int64_t x = 0;
  for (; x + 2 * count <= width; x += 2 * count) {
    const Vector<T> low = load(line + x), high = load(line + x + count);
    store(even + x / 2, __builtin_shuffle(low, high, evens));
    store(odd + x / 2, __builtin_shuffle(low, high, odds));
  }
  if (x == width) return;
  alignas(vector_bytes) T rest[2 * count], part[count];
  copy_run(line + x, width - x, rest);
  const Vector<T> low = load(rest), high = load(rest + count);
  store(part, __builtin_shuffle(low, high, evens));
  copy_run(part, (width - x + 1) / 2, even + x / 2);
  store(part, __builtin_shuffle(low, high, odds));
  copy_run(part, (width - x) / 2, odd + x / 2);
}

// The way back; the line may be written, and phases read, up to the next full register.
template <class T>
static inline void join_phases(const T* from, int64_t pitch, int64_t width, int64_t stride, T* line) {
  if (stride != 2) {
    for (int64_t phase = 0; phase < least(stride, width); ++phase) {
      const T* cells = from + phase * pitch;
      for (int64_t x = phase; x < width; x += stride) line[x] = *cells++;
    }
    return;
  }
  constexpr int count = lanes<T>;
  typename VectorOf<T>::integer lower, upper;
  for (int i = 0; i < count; ++i) {
    lower[i] = i / 2 + i % 2 * count;
    upper[i] = lower[i] + count / 2;
  }
  const T *even = from, *odd = from + pitch;
  for (int64_t x = 0; x < width; x += 2 * count) {
    const Vector<T> a = load(even + x / 2), b = load(odd + x / 2);
    store(line + x, __builtin_shuffle(a, b, lower));
    if (x + count < width) store(line + x + count, __builtin_shuffle(a, b, upper));
  }
}

// Call f with the field's data as a pointer to its element type.
template <class T, class F>
static inline void with_elements(const Field& field, int64_t offset, const F& f) {
  if constexpr (sizeof(T) == 8) {
    f(static_cast<double*>(field.data) + offset);
  } else if (field.element == Element::float32) {
    f(static_cast<float*>(field.data) + offset);
  } else if (field.element == Element::float16) {
    f(static_cast<Half*>(field.data) + offset);
  } else {
    f(static_cast<Brain*>(field.data) + offset);
  }
}

// One row of `channels` channels `channel` apart and `width` columns `column` apart, from `offset` on, into lines
// `pitch` apart. May write zeros up to the next full register after each line.
template <class T>
static void load_lines(const Field& field, int64_t offset, int64_t channel, int64_t column, int64_t channels,
                       int64_t width, T* to, int64_t pitch) {
  with_elements<T>(field, offset,
                   [&](auto* from) { load_lines_of<T>(from, channel, column, channels, width, to, pitch); });
}

// The way back; lines may be read up to the next full register.
template <class T>
static void store_lines(const T* from, int64_t pitch, const Field& field, int64_t offset, int64_t channel,
                        int64_t column, int64_t channels, int64_t width) {
  with_elements<T>(field, offset,
                   [&](auto* to) { store_lines_of<T>(from, pitch, to, channel, column, channels, width); });
}

}  // namespace acmix::ACMIX_ISA
