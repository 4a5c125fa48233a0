// Register tiles of matrix products: columns fill the lanes, a tile is some outputs by some registers.
#pragma once

#include <utility>

#include "products/simd.h"

namespace acmix::ACMIX_ISA {

// `count` registers in tiles of at most so many, as equal as can be: small tiles are slow.
struct Tiles {
  int64_t registers, whole = 0, larger = 0, first = 0, size = 0;  // larger: tiles that hold one more than `whole`

  explicit Tiles(int64_t total, int64_t most) : registers(total) {
    if (total == 0) return;
    const int64_t count = ceil_divide(total, most);
    whole = total / count;
    larger = total - whole * count;
    next();
  }
  void next() {
    first += size;
    size = first < registers ? whole + (larger-- > 0) : 0;
  }
};

// How a sum grows by a weight, the same for all lanes, times what the lanes hold: numbers,
template <class T>
struct Numbers {
  static Vector<T> spread(const T* weight) { return splat(*weight); }
  static Vector<T> add(Vector<T> sum, Vector<T> weight, Vector<T> z) { return sum + weight * z; }
};

// or pairs of bfloat16 numbers, each times its own, denormal ones counted as zero, or the first or second of each pair.
template <class T>
struct Pairs;
template <class T>
struct FirstOfPairs;
template <class T>
struct SecondOfPairs;
#if defined(__AVX512BF16__)
template <>
struct Pairs<float> {
  static Vector<float> spread(const float* weight) {
    int32_t bits;
    std::memcpy(&bits, weight, sizeof(bits));
    return (Vector<float>)_mm512_set1_epi32(bits);
  }
  static Vector<float> add(Vector<float> sum, Vector<float> weight, Vector<float> z) {
    return (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weight, (__m512bh)z);
  }
};

template <>
struct FirstOfPairs<float> : Numbers<float> {
  static Vector<float> add(Vector<float> sum, Vector<float> weight, Vector<float> z) {
    return sum + weight * (Vector<float>)((VectorOf<float>::integer)z << 16);
  }
};

template <>
struct SecondOfPairs<float> : Numbers<float> {
  static Vector<float> add(Vector<float> sum, Vector<float> weight, Vector<float> z) {
    return sum + weight * (Vector<float>)((VectorOf<float>::integer)z & -65536);
  }
};
#endif

// A run of `count` terms: that of k is weight[k] panel[k * step + i] for column i. The weights of every second output
// lie `pitch` apart, those of the other of two `partner` behind.
template <class T>
struct Terms {
  const T* panel;
  int64_t step;
  const T* weight;
  int64_t pitch, partner, count;
};

// The terms of outputs from `output`, which is even, and columns from `column` on.
template <class T>
struct Product {
  const Terms<T>* runs;
  int64_t count, output, column;
};

// What sums are of, and what becomes of them, is up to `tile`: they grow as its Term says, begin(m) is where those of
// an output begin, finish(sums) takes them.
template <class T, int outputs, int vectors, class Tile>
static void sum_tile(const Product<T>& product, const Tile& tile) {
  using Term = typename Tile::Term;
  Vector<T> sum[outputs][vectors];
#pragma GCC unroll 8
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) sum[m][i] = tile.begin(m);
  for (const Terms<T>* run = product.runs; run < product.runs + product.count; ++run) {
    const int64_t step = run->step, pitch = run->pitch, partner = run->partner, count = run->count;
    const T *panel = run->panel + product.column, *weight = run->weight + product.output / 2 * pitch;
#pragma GCC unroll 2
    for (int64_t k = 0; k < count; ++k, panel += step) {
      Vector<T> z[vectors];
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) z[i] = load_once(panel + i * lanes<T>);
#pragma GCC unroll 8
      for (int m = 0; m < outputs; ++m) {
        const Vector<T> w = Term::spread(weight + m / 2 * pitch + m % 2 * partner + k);
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) sum[m][i] = Term::add(sum[m][i], w, z[i]);
      }
    }
  }
  tile.finish(sum);
}

template <class T, class Tile>
using SumTile = void (*)(const Product<T>&, const Tile&);

// Most outputs of a tile of so many registers, an even number.
static constexpr int most_outputs(int64_t vectors) {
  const int64_t outputs = projected_sums / vectors;
  return static_cast<int>(outputs < most_projected ? outputs : most_projected);
}

template <class T, int vectors, class Tile, int... outputs>
static inline SumTile<T, Tile> choose_outputs(int64_t count, std::integer_sequence<int, outputs...>) {
  static constexpr SumTile<T, Tile> table[] = {sum_tile<T, outputs + 1, vectors, Tile>...};
  return table[count - 1];
}

// Of `outputs` outputs and `size` registers, at most most_outputs(size) and projected_vectors.
template <class T, int vectors = projected_vectors, class Tile>
static inline void multiply_tile(const Product<T>& product, int64_t outputs, int64_t size, const Tile& tile) {
  if constexpr (vectors > 1)
    if (size < vectors) return multiply_tile<T, vectors - 1>(product, outputs, size, tile);
  choose_outputs<T, vectors, Tile>(outputs, std::make_integer_sequence<int, most_outputs(vectors)>{})(product, tile);
}

// Call f(first, count) for tiles of the outputs [first, last) at `vectors` registers.
template <class F>
static inline void for_output_tiles(int64_t first, int64_t last, int64_t vectors, const F& f) {
  const int64_t most = most_outputs(vectors);
  for (; first < last; first += most) f(first, least(most, last - first));
}

}  // namespace acmix::ACMIX_ISA
