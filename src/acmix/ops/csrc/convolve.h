// Register tiles of the convolution path: positions of a flattened padded map fill the lanes.
#pragma once

#include <utility>

#include "lines.h"

namespace acmix::ACMIX_ISA {

// out[m][i] = sum over inputs c and taps t of weight[c][t][m] in[c][i + taps[t]], for `vectors` registers of positions.
template <class T, int outputs, int vectors>
static void convolve_tile(const T* in, int64_t plane, int64_t inputs, const int64_t* taps, int64_t tap_count,
                          const T* weight, T* out, int64_t out_plane) {
  constexpr int count = lanes<T>;
  Vector<T> sum[outputs][vectors] = {};
  for (int64_t c = 0; c < inputs; ++c)
    for (int64_t t = 0; t < tap_count; ++t, weight += outputs) {
      const T* from = in + c * plane + taps[t];
      Vector<T> z[vectors];
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) z[i] = load(from + i * count);
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) {
        const Vector<T> w = splat(weight[m]);
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) sum[m][i] += w * z[i];
      }
    }
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) store(out + m * out_plane + i * count, sum[m][i]);
}

template <class T>
using ConvolveTile = void (*)(const T*, int64_t, int64_t, const int64_t*, int64_t, const T*, T*, int64_t);

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

// Every output at `positions` positions (rounded up to registers); weight is [output tile][input][tap][output].
template <class T>
static void convolve(const T* in, int64_t plane, int64_t inputs, const int64_t* taps, int64_t tap_count,
                     const T* weight, T* out, int64_t out_plane, int64_t outputs, int64_t positions) {
  const int64_t vectors = ceil_divide(positions, lanes<T>), tiles = ceil_divide(vectors, tile_vectors);
  for (int64_t tile = 0, from = 0; tile < tiles; ++tile) {
    const int64_t size = ceil_divide(vectors - from, tiles - tile), start = from * lanes<T>;
    for (int64_t m = 0; m < outputs; m += tile_outputs) {
      const int64_t width = least(tile_outputs, outputs - m);
      choose_convolve_tile<T>(width, size)(in + start, plane, inputs, taps, tap_count, weight + m * inputs * tap_count,
                                           out + m * out_plane + start, out_plane);
    }
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
    for (int m = 0; m < outputs; ++m) a[m] = mask(load(left + m * left_plane + i));
#pragma GCC unroll 8
    for (int p = 0; p < pairs; ++p) {
      const Vector<T> b = load(right + offsets[p] + i);
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
