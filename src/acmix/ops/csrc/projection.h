// Stage I within a band: the projections of rows of the input, written where packing would put them.
#pragma once

#include "convolve.h"
#include "maps.h"

namespace acmix::ACMIX_ISA {

// Weights of so many outputs stay in the second-level cache, so many inputs of a tile in the first.
constexpr int64_t projected_outputs = 128, projected_inputs = 64;

// A tile of outputs by registers, over `count` inputs: bias (or 0), or what is there before if `add`.
template <class T, int outputs, int vectors>
static void project_tile(const T* panel, const T* weight, int64_t pitch, int64_t count, const T* bias, bool add,
                         T* to, int64_t plane, const int64_t* places) {
  Vector<T> sum[outputs][vectors];
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) sum[m][i] = add ? load(to + m * plane + places[i]) : splat(bias ? bias[m] : T(0));
  for (int64_t c = 0; c < count; ++c, panel += tile_vectors * lanes<T>, ++weight) {
    Vector<T> z[vectors];
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) z[i] = load_once(panel + i * lanes<T>);
#pragma GCC unroll 4
    for (int m = 0; m < outputs; ++m) {
      const Vector<T> w = splat(weight[m * pitch]);
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) sum[m][i] += w * z[i];
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) store(to + m * plane + places[i], sum[m][i]);
}

template <class T>
using ProjectTile = void (*)(const T*, const T*, int64_t, int64_t, const T*, bool, T*, int64_t, const int64_t*);

template <class T, int outputs, int... vectors>
static inline ProjectTile<T> choose_projected(int64_t count, std::integer_sequence<int, vectors...>) {
  static constexpr ProjectTile<T> table[] = {project_tile<T, outputs, vectors + 1>...};
  return table[count - 1];
}

template <class T>
static inline ProjectTile<T> choose_project_tile(int64_t outputs, int64_t vectors) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_vectors>{};
  switch (outputs) {
    case 1:
      return choose_projected<T, 1>(vectors, sizes);
    case 2:
      return choose_projected<T, 2>(vectors, sizes);
    case 3:
      return choose_projected<T, 3>(vectors, sizes);
    default:
      return choose_projected<T, 4>(vectors, sizes);
  }
}

// The input in panels, (tile of registers, channel, register): a matrix product reads it in this order.
template <class T>
struct ProjectionScratch {
  static constexpr int64_t width = tile_vectors * lanes<T>;

  int64_t registers = 0;         // of a row that hold columns of the map
  int64_t *row_places, *places;  // of the registers of a row, of all rows, of the maps
  T *line, *panels;

  ProjectionScratch(const Mix& problem, const MapLayout<T>& layout, int64_t rows, Arena<T>& arena) {
    const int64_t inputs = problem.projection.inputs, across = layout.pitch / lanes<T>;
    row_places = take_integers(arena, inputs ? across : 0);
    places = take_integers(arena, inputs ? rows * across : 0);
    line = arena.take(inputs * layout.pitch);
    panels = arena.take(inputs * width * ceil_divide(rows * across, tile_vectors));
  }

  // Make the tables of a strip with these columns, for bands of up to `rows` rows.
  void aim(const MapLayout<T>& layout, const Strip& strip, int64_t rows) {
    const Columns& columns = layout.columns;
    registers = 0;
    for (int64_t phase = 0; phase < columns.stride; ++phase)
      for (int64_t x = 0; x < columns.cells(strip.width(), phase); x += lanes<T>)
        row_places[registers++] = phase * columns.phase_pitch + x;
    for (int64_t i = 0; i < rows * registers; ++i)
      places[i] = i / registers * layout.row + row_places[i % registers];
  }
};

// Rows [begin, end) of the input of a group of images.
template <class T>
static void pack_input(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& maps,
                       const ProjectionScratch<T>& scratch, int64_t group, int64_t begin, int64_t end) {
  const Field& field = problem.projection.input;
  const int64_t inputs = problem.projection.inputs;
  for (int64_t row = begin, i = 0; row < end; ++row) {
    pack_row(layout.columns, maps, field, group * layout.interleave * field.batch + row * field.row, inputs,
             maps.inputs, layout.members(group, problem.shape.batch), scratch.line);
    for (int64_t r = 0; r < scratch.registers; ++r, ++i) {
      T* panel = scratch.panels + i / tile_vectors * inputs * scratch.width + i % tile_vectors * lanes<T>;
      const T* cells = scratch.line + scratch.row_places[r];
      for (int64_t c = 0; c < inputs; ++c) store(panel + c * scratch.width, load(cells + c * layout.pitch));
    }
  }
}

// Outputs [output, output + channels) for the `rows` rows that are packed; `to` is where column strip.begin of the first
// one lies. Zeros beyond the map.
template <class T>
static void project_rows(const Mix& problem, const MapLayout<T>& layout, const ProjectionScratch<T>& scratch,
                         const Strip& strip, int64_t output, int64_t channels, int64_t rows, T* to) {
  const int64_t inputs = problem.projection.inputs, registers = rows * scratch.registers, pitch = layout.pitch;
  const T* weight = static_cast<const T*>(problem.projection.weight) + output * inputs;
  const T* bias = static_cast<const T*>(problem.projection.bias);
  for (int64_t block = 0; block < channels; block += projected_outputs)
    for (int64_t first = 0; first < registers; first += tile_vectors) {
      const T* panel = scratch.panels + first * inputs * lanes<T>;
      const int64_t last = least(block + projected_outputs, channels), size = least(tile_vectors, registers - first);
      for (int64_t c = 0; c < inputs; c += projected_inputs)
        for (int64_t m = block; m < last; m += tile_outputs)
          choose_project_tile<T>(least(tile_outputs, last - m), size)(
              panel + c * scratch.width, weight + m * inputs + c, inputs, least(projected_inputs, inputs - c),
              bias ? bias + output + m : nullptr, c > 0, to + m * pitch, pitch, scratch.places + first);
    }
  const Columns& columns = layout.columns;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t m = 0; m < channels; ++m)
      for (int64_t phase = 0; phase < columns.stride; ++phase) {
        T* cells = to + row * layout.row + m * pitch + phase * columns.phase_pitch;
        clear(cells, columns.cells(strip.width(), phase), columns.phase_pitch);
      }
}

}  // namespace acmix::ACMIX_ISA
