// Register tiles of the convolution path: neighbouring positions of padded maps fill the lanes.
#pragma once

#include "layout/lines.h"
#include "products/product.h"

namespace acmix::ACMIX_ISA {

// `count` maps, `plane` from map to map; places are where the registers of each lie. Outputs are added to what is there
// if `add`.
template <class T>
struct Planes {
  T* data;
  int64_t plane, count;
  const int64_t* places;
  bool add = false;
};

// A tap: how far from the position it reads, and where its weight lies.
struct Tap {
  int64_t cell, weight;
};

// Taps, and the weight of output m, input c and tap t: data[outputs[m] + inputs[c] + taps[t].weight].
template <class T>
struct Weights {
  T* data;
  const int64_t *outputs, *inputs;
  const Tap* taps;
  int64_t tap_count;
};

// out[m][i] = sum over inputs c and taps t of weight(m, c, t) in[c][i + taps[t].cell], for `vectors` registers;
// products are those of Term.
template <class T, class Term, int outputs, int vectors>
static void convolve_tile(const Planes<const T>& in, const Weights<const T>& weights, const Planes<T>& out) {
  int64_t place[vectors];
#pragma GCC unroll 8
  for (int i = 0; i < vectors; ++i) place[i] = in.places[i];
  const T* weight[outputs];
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m) weight[m] = weights.data + weights.outputs[m];
  Vector<T> sum[outputs][vectors] = {};
  if (out.add)
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) sum[m][i] = load(out.data + m * out.plane + out.places[i]);
  for (int64_t c = 0; c < in.count; ++c)
    for (const Tap* tap = weights.taps; tap < weights.taps + weights.tap_count; ++tap) {
      const T* from = in.data + c * in.plane + tap->cell;
      const int64_t index = weights.inputs[c] + tap->weight;
      Vector<T> z[vectors];
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) z[i] = load_once(from + place[i]);
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) {
        const Vector<T> w = Term::spread(weight[m] + index);
#pragma GCC unroll 8
        for (int i = 0; i < vectors; ++i) sum[m][i] = Term::add(sum[m][i], w, z[i]);
      }
    }
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) store(out.data + m * out.plane + out.places[i], sum[m][i]);
}

template <class T>
using ConvolveTile = void (*)(const Planes<const T>&, const Weights<const T>&, const Planes<T>&);

template <class T, class Term, int outputs, int... vectors>
static inline ConvolveTile<T> choose_vectors(int64_t count, std::integer_sequence<int, vectors...>) {
  static constexpr ConvolveTile<T> table[] = {convolve_tile<T, Term, outputs, vectors + 1>...};
  return table[count - 1];
}

template <class T, class Term>
static inline ConvolveTile<T> choose_convolve_tile(int64_t outputs, int64_t vectors) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_vectors>{};
  switch (outputs) {
    case 1:
      return choose_vectors<T, Term, 1>(vectors, sizes);
    case 2:
      return choose_vectors<T, Term, 2>(vectors, sizes);
    case 3:
      return choose_vectors<T, Term, 3>(vectors, sizes);
    default:
      return choose_vectors<T, Term, 4>(vectors, sizes);
  }
}

// Every output at `registers` registers of positions.
template <class T, class Term = Numbers<T>>
static void convolve(const Planes<const T>& in, const Weights<const T>& weights, const Planes<T>& out,
                     int64_t registers) {
  for (Tiles tile(registers, tile_vectors); tile.first < registers; tile.next())
    for (int64_t m = 0; m < out.count; m += tile_outputs)
      choose_convolve_tile<T, Term>(least(tile_outputs, out.count - m), tile.size)(
          {in.data, in.plane, in.count, in.places + tile.first},
          {weights.data, weights.outputs + m, weights.inputs, weights.taps, weights.tap_count},
          {out.data + m * out.plane, out.plane, out.count, out.places + tile.first, out.add});
}

// 3x3 taps over `rows` rows: an input is read once for the three rows that see it. `cells` are the three columns of the
// first row of taps, `weight` is (input, column, row, output).
template <class T, class Term, int outputs, int rows>
static void convolve_rows_tile(const Rows<const T>& in, int64_t inputs, const int64_t* cells, const T* weight,
                               const Rows<T>& out, bool add) {
  Vector<T> sum[rows][outputs] = {};
  if (add)
#pragma GCC unroll 4
    for (int a = 0; a < rows; ++a)
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) sum[a][m] = load(out.data + a * out.row + m * out.pitch);
  const T* map = in.data;
  for (int64_t c = 0; c < inputs; ++c, map += in.pitch)
    for (int column = 0; column < 3; ++column, weight += 3 * outputs) {
      Vector<T> w[3][outputs];
#pragma GCC unroll 3
      for (int t = 0; t < 3; ++t)
#pragma GCC unroll 4
        for (int m = 0; m < outputs; ++m) w[t][m] = opaque(Term::spread(weight + t * outputs + m));
      const T* from = map + cells[column];
#pragma GCC unroll 8
      for (int r = 0; r < rows + 2; ++r) {
        const Vector<T> z = load_once(from + r * in.row);
#pragma GCC unroll 3
        for (int t = 0; t < 3; ++t) {
          if (r < t || r - t >= rows) continue;
#pragma GCC unroll 4
          for (int m = 0; m < outputs; ++m) sum[r - t][m] = Term::add(sum[r - t][m], w[t][m], z);
        }
      }
    }
#pragma GCC unroll 4
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m) store(out.data + a * out.row + m * out.pitch, sum[a][m]);
}

template <class T>
using ConvolveRowsTile = void (*)(const Rows<const T>&, int64_t, const int64_t*, const T*, const Rows<T>&, bool);

template <class T, class Term, int... sizes>
static inline ConvolveRowsTile<T> choose_rows_tile(int64_t outputs, int64_t rows,
                                                   std::integer_sequence<int, sizes...>) {
  static constexpr ConvolveRowsTile<T> table[] = {
      convolve_rows_tile<T, Term, sizes / convolved_rows + 1, sizes % convolved_rows + 1>...};
  return table[(outputs - 1) * convolved_rows + rows - 1];
}

// Every output at `rows` rows of `across` registers of positions, by 3x3 taps in the order of their rows and columns;
// places are those of the first row. `packed` is room for 9 weights of every input and convolved_outputs outputs.
template <class T, class Term>
static void convolve_rows(const Planes<const T>& in, int64_t in_row, const Weights<const T>& weights,
                          const Planes<T>& out, int64_t out_row, int64_t rows, int64_t across, T* packed) {
  constexpr auto sizes = std::make_integer_sequence<int, convolved_outputs * convolved_rows>{};
  const int64_t cells[] = {weights.taps[0].cell, weights.taps[1].cell, weights.taps[2].cell};
  int64_t order[9];  // column by column
  for (int t = 0; t < 9; ++t) order[t] = weights.taps[t % 3 * 3 + t / 3].weight;
  for (int64_t m = 0; m < out.count; m += convolved_outputs) {
    const int64_t outputs = least(convolved_outputs, out.count - m);
    for (int64_t c = 0; c < in.count; ++c)
      for (int64_t i = 0; i < outputs; ++i) {
        const T* weight = weights.data + weights.outputs[m + i] + weights.inputs[c];
        T* to = packed + 9 * outputs * c + i;
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) to[t * outputs] = weight[order[t]];
      }
    for (Tiles tile(rows, convolved_rows); tile.first < rows; tile.next())
      for (int64_t x = 0; x < across; ++x)
        choose_rows_tile<T, Term>(outputs, tile.size, sizes)(
            {in.data + tile.first * in_row + in.places[x], in_row, in.plane}, in.count, cells, packed,
            {out.data + m * out.plane + tile.first * out_row + out.places[x], out_row, out.plane}, out.add);
  }
}

// The sum over the lanes of each of `size` registers.
template <class T, int size>
static inline void sum_lanes(const Vector<T> (&registers)[size], T* to) {
  constexpr int count = lanes<T>;
#pragma GCC unroll 8
  for (int first = 0; first < size; first += count) {
    Vector<T> block[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) block[i] = first + i < size ? registers[first + i] : Vector<T>{};
    // A transpose that adds after every round what it would have kept apart.
    typename VectorOf<T>::integer low, high;
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) {
      low[i] = i / 2 + (i % 2) * count;
      high[i] = low[i] + count / 2;
    }
#pragma GCC unroll 4
    for (int half = count / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i)
        block[i] =
            __builtin_shuffle(block[i], block[i + half], low) + __builtin_shuffle(block[i], block[i + half], high);
    store(to + first, block[0]);
  }
}

// Registers, `across` in a row, of which the first `cells` lanes are cells; the others are zeros.
struct Span {
  int64_t registers, across, cells;
};

// The sum over the cells alone: a zero beside them times what is not finite, and in no cell's reach, is NaN.
template <class T>
static T correlate_cells(const T* left, const int64_t* left_places, const T* right, const int64_t* right_places,
                         const Span& span) {
  T total = 0;
  for (int64_t i = 0; i < span.registers; ++i)
    for (int64_t l = 0; l < lanes<T> && i % span.across * lanes<T> + l < span.cells; ++l)
      total += left[left_places[i] + l] * right[right_places[i] + l];
  return total;
}

// weight(m, c, t) += sum over the span of left[m] times right[c] shifted by tap t, for `pairs` pairs of an input and a
// tap, whose shifts and weights are given.
template <class T, int outputs, int pairs>
static void correlate_tile(const Planes<const T>& left, const Planes<const T>& right, const Tap* shifts,
                           const int64_t* to_output, const Span& span, T* to) {
  Vector<T> sum[outputs * pairs] = {};
  for (int64_t i = 0, registers = span.registers; i < registers; ++i) {
    const T *from = left.data + left.places[i], *shifted = right.data + right.places[i];
    Vector<T> a[outputs];
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m) a[m] = load_once(from + m * left.plane);
#pragma GCC unroll 8
    for (int p = 0; p < pairs; ++p) {
      const Vector<T> b = load_once(shifted + shifts[p].cell);
#pragma GCC unroll 4
      for (int m = 0; m < outputs; ++m) sum[m * pairs + p] += a[m] * b;
    }
  }
  alignas(vector_bytes) T totals[(outputs * pairs + lanes<T> - 1) / lanes<T> * lanes<T>];
  sum_lanes<T, outputs * pairs>(sum, totals);
  for (int m = 0; m < outputs; ++m)
    for (int p = 0; p < pairs; ++p) {
      T total = totals[m * pairs + p];
      if (total - total != T(0))
        total =
            correlate_cells(left.data + m * left.plane, left.places, right.data + shifts[p].cell, right.places, span);
      to[to_output[m] + shifts[p].weight] += total;
    }
}

template <class T>
using CorrelateTile = void (*)(const Planes<const T>&, const Planes<const T>&, const Tap*, const int64_t*, const Span&,
                               T*);

template <class T, int outputs, int... pairs>
static inline CorrelateTile<T> choose_pairs(int64_t count, std::integer_sequence<int, pairs...>) {
  static constexpr CorrelateTile<T> table[] = {correlate_tile<T, outputs, pairs + 1>...};
  return table[count - 1];
}

template <class T>
static inline CorrelateTile<T> choose_correlate_tile(int64_t outputs, int64_t pairs) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_vectors>{};
  switch (outputs) {
    case 1:
      return choose_pairs<T, 1>(pairs, sizes);
    case 2:
      return choose_pairs<T, 2>(pairs, sizes);
    case 3:
      return choose_pairs<T, 3>(pairs, sizes);
    default:
      return choose_pairs<T, 4>(pairs, sizes);
  }
}

// The gradient of the weights between inputs `right` and outputs `left`, added to weights.data.
template <class T>
static void correlate(const Planes<const T>& left, const Planes<const T>& right, const Weights<T>& weights,
                      const Span& span) {
  const int64_t pairs = right.count * weights.tap_count;
  Tap shifts[tile_vectors];
  for (Tiles tile(pairs, tile_vectors); tile.first < pairs; tile.next()) {
    for (int64_t p = 0; p < tile.size; ++p) {
      const int64_t c = (tile.first + p) / weights.tap_count;
      const Tap& tap = weights.taps[(tile.first + p) % weights.tap_count];
      shifts[p] = {c * right.plane + tap.cell, weights.inputs[c] + tap.weight};
    }
    for (int64_t m = 0; m < left.count; m += tile_outputs)
      choose_correlate_tile<T>(least(tile_outputs, left.count - m), tile.size)(
          {left.data + m * left.plane, left.plane, left.count, left.places}, right, shifts, weights.outputs + m, span,
          weights.data);
  }
}

}  // namespace acmix::ACMIX_ISA
