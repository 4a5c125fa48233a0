// Register tiles of the convolution path: neighbouring positions of padded maps fill the lanes.
#pragma once

#include <utility>

#include "lines.h"

namespace acmix::ACMIX_ISA {

// `count` maps `plane` apart; places are where the registers of each lie, null if one after the other. Outputs are added
// to what is there if `add`.
template <class T>
struct Planes {
  T* data;
  int64_t plane, count;
  const int64_t* places = nullptr;
  bool add = false;
};

// Weights `(output, input, tap)`, outputs `output` apart; after every `part` inputs, `skip` inputs are left out.
template <class T>
struct Weights {
  const T* data;
  int64_t output, part, skip = 0;
};

// out[m][i] = sum over inputs c and taps t of weight[m][c][t] in[c][i + taps[t]], for `vectors` registers of positions.
template <class T, int outputs, int vectors>
static void convolve_tile(const Planes<const T>& in, const int64_t* taps, int64_t tap_count, const Weights<T>& weights,
                          const Planes<T>& out) {
  const T* weight = weights.data;
  int64_t place[vectors];
#pragma GCC unroll 8
  for (int i = 0; i < vectors; ++i) place[i] = in.places[i];
  Vector<T> sum[outputs][vectors] = {};
  if (out.add)
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) sum[m][i] = load(out.data + m * out.plane + out.places[i]);
  for (int64_t c = 0; c < in.count; ++c, weight += c % weights.part ? 0 : weights.skip * tap_count)
    for (int64_t t = 0; t < tap_count; ++t, ++weight) {
      const T* from = in.data + c * in.plane + taps[t];
      Vector<T> z[vectors];
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) z[i] = load_once(from + place[i]);
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) {
        const Vector<T> w = splat(weight[m * weights.output]);
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) sum[m][i] += w * z[i];
      }
    }
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) store(out.data + m * out.plane + out.places[i], sum[m][i]);
}

template <class T>
using ConvolveTile = void (*)(const Planes<const T>&, const int64_t*, int64_t, const Weights<T>&, const Planes<T>&);

template <class T, int outputs, int... vectors>
static inline ConvolveTile<T> choose_vectors(int64_t count, std::integer_sequence<int, vectors...>) {
  static constexpr ConvolveTile<T> table[] = {convolve_tile<T, outputs, vectors + 1>...};
  return table[count - 1];
}

template <class T>
static inline ConvolveTile<T> choose_convolve_tile(int64_t outputs, int64_t vectors) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_vectors>{};
  switch (outputs) {
    case 1:
      return choose_vectors<T, 1>(vectors, sizes);
    case 2:
      return choose_vectors<T, 2>(vectors, sizes);
    case 3:
      return choose_vectors<T, 3>(vectors, sizes);
    default:
      return choose_vectors<T, 4>(vectors, sizes);
  }
}

// Every output at `registers` registers of positions.
template <class T>
static void convolve(const Planes<const T>& in, const int64_t* taps, int64_t tap_count, const Weights<T>& weights,
                     const Planes<T>& out, int64_t registers) {
  const int64_t tiles = ceil_divide(registers, tile_vectors);
  int64_t next[tile_vectors];
  for (int64_t tile = 0, from = 0; tile < tiles; ++tile) {
    const int64_t size = ceil_divide(registers - from, tiles - tile);
    for (int64_t i = 0; i < size; ++i) next[i] = (from + i) * lanes<T>;
    const Planes<const T> here = {in.data, in.plane, in.count, in.places ? in.places + from : next};
    const int64_t* places = out.places ? out.places + from : next;
    for (int64_t m = 0; m < out.count; m += tile_outputs)
      choose_convolve_tile<T>(least(tile_outputs, out.count - m), size)(
          here, taps, tap_count, {weights.data + m * weights.output, weights.output, weights.part, weights.skip},
          {out.data + m * out.plane, out.plane, out.count, places, out.add});
    from += size;
  }
}

// to[m * to_row + p] += sum over positions of left[m] * (right + offsets[p]), for `pairs` offsets at once.
template <class T, int outputs, int pairs>
static void correlate_tile(const T* left, int64_t left_plane, const T* right, const int64_t* offsets,
                           int64_t positions, T* to, int64_t to_row) {
  constexpr int count = lanes<T>;
  Vector<T> sum[outputs][pairs] = {};
  auto add = [&](int64_t i, auto&& mask) __attribute__((always_inline)) {
    Vector<T> a[outputs];
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m) a[m] = mask(load_once(left + m * left_plane + i));
#pragma GCC unroll 8
    for (int p = 0; p < pairs; ++p) {
      const Vector<T> b = load_once(right + offsets[p] + i);
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) sum[m][p] += a[m] * b;
    }
  };
  int64_t i = 0;
  for (; i + count <= positions; i += count) add(i, [](Vector<T> value) { return value; });
  if (i < positions) {
    typename VectorOf<T>::integer lane;
    for (int l = 0; l < count; ++l) lane[l] = l;
    const auto inside = lane < static_cast<typename Bits<T>::type>(positions - i);
    add(i, [&](Vector<T> value) { return inside ? value : Vector<T>{}; });
  }
  alignas(vector_bytes) T parts[outputs][pairs][count];
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int p = 0; p < pairs; ++p) store(parts[m][p], sum[m][p]);
  for (int m = 0; m < outputs; ++m)
    for (int p = 0; p < pairs; ++p) to[m * to_row + p] += sum_lanes<T>(parts[m][p]);
}

template <class T>
using CorrelateTile = void (*)(const T*, int64_t, const T*, const int64_t*, int64_t, T*, int64_t);

template <class T>
static inline CorrelateTile<T> choose_correlate_tile(int64_t outputs, bool full) {
  static constexpr CorrelateTile<T> single[] = {correlate_tile<T, 1, 1>, correlate_tile<T, 2, 1>,
                                                correlate_tile<T, 3, 1>, correlate_tile<T, 4, 1>};
  static constexpr CorrelateTile<T> many[] = {correlate_tile<T, 1, tile_vectors>, correlate_tile<T, 2, tile_vectors>,
                                              correlate_tile<T, 3, tile_vectors>, correlate_tile<T, 4, tile_vectors>};
  return full ? many[outputs - 1] : single[outputs - 1];
}

// to[m][p] += <left[m], right shifted by offsets[p]> for every output m and offset p, `(outputs, offset_count)`.
template <class T>
static void correlate(const T* left, int64_t left_plane, int64_t outputs, const T* right, const int64_t* offsets,
                      int64_t offset_count, int64_t positions, T* to) {
  for (int64_t p = 0, size = 1; p < offset_count; p += size) {
    const bool full = p + tile_vectors <= offset_count;
    size = full ? tile_vectors : 1;
    for (int64_t m = 0; m < outputs; m += tile_outputs)
      choose_correlate_tile<T>(least(tile_outputs, outputs - m), full)(
          left + m * left_plane, left_plane, right, offsets + p, positions, to + m * offset_count + p, offset_count);
  }
}

}  // namespace acmix::ACMIX_ISA
