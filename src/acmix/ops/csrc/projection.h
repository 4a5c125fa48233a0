// Stage I within a band: the projections of rows of the input, written where packing would put them.
#pragma once

#include "convolve.h"
#include "maps.h"

namespace acmix::ACMIX_ISA {

// Weights of so many outputs stay in the second-level cache, so many inputs of a tile in the first.
constexpr int64_t block_outputs = 128, block_inputs = 128;

// A tile of outputs by registers, over `count` inputs, added to bias (or 0), or to what is there if `add`; zero where
// not `own`.
template <class T, int outputs, int vectors>
static void project_tile(const T* panel, const T* weight, int64_t pitch, int64_t count, const T* bias, bool add,
                         const T* own, T* to, int64_t plane, const int64_t* places) {
  Vector<T> sum[outputs][vectors];
#pragma GCC unroll 8
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) sum[m][i] = add ? load(to + m * plane + places[i]) : splat(bias ? bias[m] : T(0));
  for (int64_t c = 0; c < count; ++c, panel += vectors * lanes<T>, ++weight) {
    Vector<T> z[vectors];
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) z[i] = load_once(panel + i * lanes<T>);
#pragma GCC unroll 8
    for (int m = 0; m < outputs; ++m) {
      const Vector<T> w = splat(weight[m * pitch]);
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) sum[m][i] += w * z[i];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < vectors; ++i) {
    const auto kept = load(own + i * lanes<T>) > T(0);
#pragma GCC unroll 8
    for (int m = 0; m < outputs; ++m) store(to + m * plane + places[i], kept ? sum[m][i] : Vector<T>{});
  }
}

template <class T>
using ProjectTile = void (*)(const T*, const T*, int64_t, int64_t, const T*, bool, const T*, T*, int64_t, const int64_t*);

template <class T, int... sizes>
static inline ProjectTile<T> choose_project_tile(int64_t outputs, int64_t vectors,
                                                 std::integer_sequence<int, sizes...>) {
  static constexpr ProjectTile<T> table[] = {
      project_tile<T, sizes / projected_vectors + 1, sizes % projected_vectors + 1>...};
  return table[(outputs - 1) * projected_vectors + vectors - 1];
}

// The input in panels, (tile of registers, channel, register): a matrix product reads it in this order.
template <class T>
struct ProjectionScratch {
  int64_t registers = 0;         // of a row that hold columns of the map
  int64_t *row_places, *places;  // of the registers of a row, of all rows, of the maps
  T *own, *line, *panels;        // own: 1 in columns of the map

  ProjectionScratch(const Mix& problem, const MapLayout<T>& layout, int64_t rows, Arena<T>& arena) {
    const int64_t inputs = problem.projection.inputs, across = layout.pitch / lanes<T>;
    row_places = take_integers(arena, inputs ? across : 0);
    places = take_integers(arena, inputs ? rows * across : 0);
    own = arena.take(inputs ? rows * layout.pitch : 0);
    line = arena.take(inputs * layout.pitch);
    panels = arena.take(inputs * rows * layout.pitch);
  }

  // Make the tables of a strip with these columns, for bands of up to `rows` rows.
  void aim(const MapLayout<T>& layout, const Strip& strip, int64_t rows) {
    const Columns& columns = layout.columns;
    registers = 0;
    for (int64_t phase = 0; phase < columns.stride; ++phase)
      for (int64_t x = 0; x < columns.cells(strip.width(), phase); x += lanes<T>)
        row_places[registers++] = phase * columns.phase_pitch + x;
    for (int64_t i = 0; i < rows * registers; ++i) {
      const int64_t place = row_places[i % registers], phase = place / columns.phase_pitch;
      places[i] = i / registers * layout.row + place;
      for (int64_t l = 0; l < lanes<T>; ++l)
        own[i * lanes<T> + l] = place % columns.phase_pitch + l < columns.cells(strip.width(), phase);
    }
  }
};

// Rows [begin, end) of the input of a group of images.
template <class T>
static void pack_input(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& maps,
                       const ProjectionScratch<T>& scratch, int64_t group, int64_t begin, int64_t end) {
  const Field& field = problem.projection.input;
  const int64_t inputs = problem.projection.inputs;
  Tiles tiles((end - begin) * scratch.registers, projected_vectors);
  for (int64_t row = begin, i = 0; row < end; ++row) {
    pack_row(layout.columns, maps, field, group * layout.interleave * field.batch + row * field.row, inputs,
             maps.inputs, layout.members(group, problem.shape.batch), scratch.line);
    for (int64_t r = 0; r < scratch.registers; ++r, ++i) {
      if (i == tiles.first + tiles.size) tiles.next();
      T* panel = scratch.panels + (tiles.first * inputs + i - tiles.first) * lanes<T>;
      const T* cells = scratch.line + scratch.row_places[r];
      for (int64_t c = 0; c < inputs; ++c) store(panel + c * tiles.size * lanes<T>, load(cells + c * layout.pitch));
    }
  }
}

// Queries, keys and values of the heads from `head` on, for the `rows` rows that are packed; `to` is where column
// strip.begin of the first one lies. Zeros beyond the map.
template <class T>
static void project_rows(const Mix& problem, const MapLayout<T>& layout, const ProjectionScratch<T>& scratch,
                         const Strip& strip, int64_t head, int64_t rows, T* to) {
  const int64_t inputs = problem.projection.inputs, registers = rows * scratch.registers, pitch = layout.pitch;
  const int64_t channels = layout.channels, maps = problem.shape.heads * problem.shape.head_size;
  const T* weight = static_cast<const T*>(problem.projection.weight);
  const T* bias = static_cast<const T*>(problem.projection.bias);
  constexpr auto sizes = std::make_integer_sequence<int, projected_outputs * projected_vectors>{};
  for (int64_t block = 0; block < channels; block += block_outputs)
    for (Tiles tile(registers, projected_vectors); tile.first < registers; tile.next()) {
      const T* panel = scratch.panels + tile.first * inputs * lanes<T>;
      const int64_t last = least(block + block_outputs, channels);
      for (int64_t c = 0; c < inputs; c += block_inputs)
        for (int64_t part = 0; part < 3; ++part)
          for (int64_t m = block; m < last; m += projected_outputs) {
            const int64_t output = part * maps + head * problem.shape.head_size + m;
            choose_project_tile<T>(least(projected_outputs, last - m), tile.size, sizes)(
                panel + c * tile.size * lanes<T>, weight + output * inputs + c, inputs,
                least(block_inputs, inputs - c), bias ? bias + output : nullptr, c > 0,
                scratch.own + tile.first * lanes<T>, to + (part * channels + m) * pitch, pitch,
                scratch.places + tile.first);
          }
    }
  const Columns& columns = layout.columns;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t m = 0; m < 3 * channels; ++m)
      for (int64_t phase = 0; phase < columns.stride; ++phase) {
        T* cells = to + row * layout.row + m * pitch + phase * columns.phase_pitch;
        for (int64_t x = round_up(columns.cells(strip.width(), phase), lanes<T>); x < columns.phase_pitch; x += lanes<T>)
          store(cells + x, Vector<T>{});
      }
}

}  // namespace acmix::ACMIX_ISA
