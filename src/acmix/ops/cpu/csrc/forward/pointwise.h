// Convolutions of one cell, which stand around the operator in a residual block: a matrix product, with bias, a
// shortcut that is added, and ReLU.
#pragma once

#include "stage_one/projection.h"

namespace acmix::ACMIX_ISA {

// Of the cells of a task, which stay in the second-level cache; outputs of cells in lanes that are computed before they
// are written: whole tiles, and long runs of a pixel.
constexpr int64_t run_bytes = 256 << 10, outputs_together = 288;

// Lanes hold outputs, whose weights are transposed for that, or cells, which are, and what they give. A task is a run
// of cells, or some outputs of one where there are few.
template <class T>
struct PointwiseLayout {
  bool paired, outputs_in_lanes, dense;  // dense: whether the cells of the input follow each other
  int64_t terms;                         // of the sums over inputs
  int64_t run, runs;                     // cells of one
  int64_t share, parts;                  // outputs of one part

  static constexpr int64_t block = projected_vectors * lanes<T>;

  explicit PointwiseLayout(const Pointwise& layer)
      : paired(in_pairs<T> && layer.weight_element == Element::bfloat16),
        outputs_in_lanes(layer.inputs * layer.outputs < layer.cells * (layer.inputs + layer.outputs)),
        dense(is_dense(layer)),
        terms(paired ? layer.inputs / 2 : layer.inputs) {
    const int64_t step = outputs_in_lanes ? most_outputs(projected_vectors) : block, threads = layer.threads;
    const int64_t cached = most(run_bytes / (terms * static_cast<int64_t>(sizeof(T))) / step, 1) * step;
    // As many runs for every thread.
    runs = round_up(ceil_divide(layer.cells, cached), threads);
    run = most(round_up(ceil_divide(layer.cells, runs), step), least(block, round_up(layer.cells, step)));
    runs = ceil_divide(layer.cells, run);
    share = round_up(ceil_divide(layer.outputs, ceil_divide(threads, runs)), block);
    parts = ceil_divide(layer.outputs, share);
  }

  static bool is_dense(const Pointwise& layer) {
    const Field& field = layer.input;
    return layer.stride == 1 && field.column == layer.inputs && field.row == layer.width_out * field.column &&
           field.batch == layer.height_out * field.row;
  }

  // The weights of a block of outputs in lanes: biases, then (term, output).
  int64_t lane_outputs(const Pointwise& layer, int64_t first) const {
    return round_up(least(block, layer.outputs - first), lanes<T>);
  }
  T* weights(const Pointwise& layer, int64_t first) const {
    return static_cast<T*>(layer.packed) + first * (terms + 1);
  }
};

template <class T>
static PackingWork pointwise_packing(const Pointwise& layer) {
  const PointwiseLayout<T> layout(layer);
  if (!layout.outputs_in_lanes) return {};
  return {round_up(layer.outputs, lanes<T>) * (layout.terms + 1), ceil_divide(layer.outputs, layout.block)};
}

// Blocks [first, last) of outputs.
template <class T>
static void pack_pointwise(const Pointwise& layer, int64_t first, int64_t last) {
  constexpr int count = lanes<T>;
  const PointwiseLayout<T> layout(layer);
  const T *weight = static_cast<const T*>(layer.weight), *bias = static_cast<const T*>(layer.bias);
  for (int64_t output = first * layout.block; output < least(last * layout.block, layer.outputs); output += count) {
    const int64_t begin = output / layout.block * layout.block, pitch = layout.lane_outputs(layer, begin);
    const int64_t rows = least(count, layer.outputs - output);
    T* to = layout.weights(layer, begin) + output - begin;
    store(to, bias ? load_some<T>(bias + output, rows) : Vector<T>{});
    to += pitch;
    for (int64_t k = 0; k < layout.terms; k += count) {
      Vector<T> part[count];
      for (int i = 0; i < count; ++i)
        part[i] = i < rows ? load_some<T>(weight + (output + i) * layout.terms + k, layout.terms - k) : Vector<T>{};
      transpose<T>(part);
      for (int i = 0; i < least(count, layout.terms - k); ++i) store(to + (k + i) * pitch, part[i]);
    }
  }
}

// What follows the sums of outputs of a cell: the shortcut, none if null, and ReLU.
template <class T, class E>
static inline Vector<T> finish_sum(Vector<T> sum, const E* shortcut, int64_t count, bool rectified) {
  if (shortcut) sum += load_some<T>(shortcut, count);
  return rectified ? rectify<T>(sum) : sum;
}

// A tile of cells by registers of outputs.
template <class T, class SumTerm, class E>
struct CellTile {
  using Term = SumTerm;
  const T* bias;
  E* output;  // of the first cell
  const E* shortcut;
  int64_t outputs, count;  // count: of the outputs from the first one on
  bool rectified;

  Vector<T> begin(int64_t) const { return Vector<T>{}; }

  template <int cells, int vectors>
  void finish(const Vector<T> (&sum)[cells][vectors]) const {
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) {
      const int64_t first = i * lanes<T>;
#pragma GCC unroll 8
      for (int m = 0; m < cells; ++m)
        store_some<T>(output + m * outputs + first,
                      finish_sum<T>(sum[m][i] + load(bias + first), shortcut ? shortcut + m * outputs + first : nullptr,
                                    count - first, rectified),
                      count - first);
    }
  }
};

// A tile of outputs by registers of cells, each begun with its output's bias, put into lines of cells.
template <class T, class SumTerm>
struct LineTile {
  using Term = SumTerm;
  const T* bias;
  T* to;
  int64_t pitch;

  Vector<T> begin(int64_t m) const { return splat(bias ? bias[m] : T(0)); }

  template <int outputs, int vectors>
  void finish(const Vector<T> (&sum)[outputs][vectors]) const {
#pragma GCC unroll 8
    for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) store(to + m * pitch + i * lanes<T>, sum[m][i]);
  }
};

template <class T>
struct PointwiseScratch {
  T *cells, *lines;  // cells: (cell, term) where they do not lie so, or panels (tile of registers, term, register)

  PointwiseScratch(const PointwiseLayout<T>& layout, Arena<T>& arena)
      : cells(arena.take(layout.terms * round_up(layout.run, lanes<T>) + lanes<T>)),
        lines(arena.take(layout.outputs_in_lanes ? 0 : outputs_together * layout.block)) {}
};

// Hardware does not foresee pixels that lie alone in memory.
template <bool written, class E>
static inline void ask_for(const E* pixel, int64_t outputs) {
  for (int64_t j = 0; j < outputs; j += 64 / static_cast<int64_t>(sizeof(E))) __builtin_prefetch(pixel + j, written);
}

// Outputs [first, last), multiples of a block, of cells by outputs in lanes; `rows` are the terms of each cell.
template <class T, class Term, class E>
static void multiply_cells(const Pointwise& layer, const PointwiseLayout<T>& layout, const T* rows, int64_t cells,
                           int64_t first, int64_t last, E* output, const E* shortcut) {
  for (int64_t begin = first; begin < last; begin += layout.block) {
    const int64_t pitch = layout.lane_outputs(layer, begin), count = least(layout.block, layer.outputs - begin);
    const T* weights = layout.weights(layer, begin);
    for_output_tiles(0, cells, pitch / lanes<T>, [&](int64_t cell, int64_t size) {
      const int64_t place = cell * layer.outputs + begin;
      for (int64_t m = 0; m < size; ++m) {
        ask_for<true>(output + place + m * layer.outputs, count);
        if (shortcut) ask_for<false>(shortcut + place + m * layer.outputs, count);
      }
      const Terms<T> terms = {weights + pitch, pitch, rows, 2 * layout.terms, layout.terms, layout.terms};
      multiply_tile<T>({&terms, 1, cell, 0}, size, pitch / lanes<T>,
                       CellTile<T, Term, E>{weights, output + place, shortcut ? shortcut + place : nullptr,
                                            layer.outputs, count, layer.rectified});
    });
  }
}

// Outputs [first, last) of cells in panels, by cells in lanes.
template <class T, class Term, class E>
static void multiply_panels(const Pointwise& layer, const PointwiseLayout<T>& layout,
                            const PointwiseScratch<T>& scratch, int64_t cells, int64_t first, int64_t last, E* output,
                            const E* shortcut) {
  constexpr int count = lanes<T>;
  const T *weight = static_cast<const T*>(layer.weight), *bias = static_cast<const T*>(layer.bias);
  for (int64_t begin = first; begin < last; begin += outputs_together) {
    const int64_t end = least(begin + outputs_together, last);
    for (Tiles tile(ceil_divide(cells, count), projected_vectors); tile.first < tile.registers; tile.next()) {
      const int64_t cell = tile.first * count, pitch = tile.size * count;
      const Terms<T> terms = {
          scratch.cells + cell * layout.terms, pitch, weight, 2 * layout.terms, layout.terms, layout.terms};
      for_output_tiles(begin, end, tile.size, [&](int64_t m, int64_t outputs) {
        multiply_tile<T>({&terms, 1, m, 0}, outputs, tile.size,
                         LineTile<T, Term>{bias ? bias + m : nullptr, scratch.lines + (m - begin) * pitch, pitch});
      });
      for (int64_t i = 0; i < pitch; i += count)
        for (int64_t j = begin; j < end; j += count) {
          Vector<T> part[count];
          for (int l = 0; l < count; ++l)
            part[l] = j + l < end ? load(scratch.lines + (j + l - begin) * pitch + i) : Vector<T>{};
          transpose<T>(part);
          const int64_t known = least(count, cells - cell - i);
          // All loads before the first store: pixels are often a part of 4 KiB apart, in both maps.
          for (int64_t l = 0; l < known; ++l)
            part[l] = finish_sum<T>(part[l], shortcut ? shortcut + (cell + i + l) * layer.outputs + j : nullptr,
                                    end - j, layer.rectified);
          for (int64_t l = 0; l < known; ++l)
            store_some<T>(output + (cell + i + l) * layer.outputs + j, part[l], end - j);
        }
    }
  }
}

// Where a cell that is computed lies in the input.
template <class E>
static inline const E* pixel_of(const Pointwise& layer, const E* input, int64_t cell) {
  const int64_t x = cell % layer.width_out, row = cell / layer.width_out, y = row % layer.height_out;
  const Field& field = layer.input;
  return input + row / layer.height_out * field.batch + y * layer.stride * field.row + x * layer.stride * field.column;
}

// Cells from `begin` on as rows of terms: where they lie, or brought together and widened.
template <class T, class E>
static const T* rows_of(const Pointwise& layer, const PointwiseLayout<T>& layout, const PointwiseScratch<T>& scratch,
                        const E* input, int64_t begin, int64_t cells) {
  if (layout.dense && (layout.paired || sizeof(T) == sizeof(E)))
    return reinterpret_cast<const T*>(input + begin * layer.inputs);
  for (int64_t cell = 0; cell < cells; ++cell) {
    const E* from = pixel_of(layer, input, begin + cell);
    T* to = scratch.cells + cell * layout.terms;
    if (layout.paired)
      std::memcpy(to, from, static_cast<size_t>(layer.inputs) * sizeof(E));
    else
      for (int64_t k = 0; k < layer.inputs; k += lanes<T>) store(to + k, load_some<T>(from + k, layer.inputs - k));
  }
  return scratch.cells;
}

// Cells in panels.
template <class T, class E>
static void pack_cells(const Pointwise& layer, const PointwiseLayout<T>& layout, const PointwiseScratch<T>& scratch,
                       const E* input, int64_t begin, int64_t cells) {
  Tiles tile(ceil_divide(cells, lanes<T>), projected_vectors);
  for (int64_t place = 0; place < tile.registers; ++place) {
    if (place == tile.first + tile.size) tile.next();
    const E* lane[lanes<T>];
    for (int i = 0; i < lanes<T>; ++i) {
      const int64_t cell = place * lanes<T> + i;
      lane[i] = cell < cells ? pixel_of(layer, input, begin + cell) : nullptr;
    }
    load_input<T, false>(layout.paired, lane, layer.inputs, lanes<T> * layer.stride * layer.input.column,
                         scratch.cells + (tile.first * layout.terms + place - tile.first) * lanes<T>,
                         tile.size * lanes<T>);
  }
}

template <class T>
static int64_t pointwise_tasks(const Pointwise& layer) {
  const PointwiseLayout<T> layout(layer);
  return layout.runs * layout.parts;
}

template <class T, class Term, class E>
static void convolve_run(const Pointwise& layer, const PointwiseLayout<T>& layout, const PointwiseScratch<T>& scratch,
                         const E* input, int64_t begin, int64_t cells, int64_t first, int64_t last) {
  E* output = static_cast<E*>(layer.output) + begin * layer.outputs;
  const E* shortcut = layer.shortcut ? static_cast<const E*>(layer.shortcut) + begin * layer.outputs : nullptr;
  if (layout.outputs_in_lanes) {
    const T* rows = rows_of(layer, layout, scratch, input, begin, cells);
    multiply_cells<T, Term>(layer, layout, rows, cells, first, last, output, shortcut);
  } else {
    pack_cells(layer, layout, scratch, input, begin, cells);
    multiply_panels<T, Term>(layer, layout, scratch, cells, first, last, output, shortcut);
  }
}

template <class T>
static void convolve_pointwise(const Pointwise& layer, int64_t first_task, int64_t last_task) {
  const PointwiseLayout<T> layout(layer);
  Arena<T> arena;
  PointwiseScratch<T>(layout, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  const PointwiseScratch<T> scratch(layout, arena);
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t begin = task / layout.parts * layout.run, cells = least(layout.run, layer.cells - begin);
    const int64_t first = task % layout.parts * layout.share, last = least(first + layout.share, layer.outputs);
    with_elements<T>(layer.input, 0, [&](const auto* input) {
      if constexpr (in_pairs<T>)
        if (layout.paired) return convolve_run<T, Pairs<T>>(layer, layout, scratch, input, begin, cells, first, last);
      convolve_run<T, Numbers<T>>(layer, layout, scratch, input, begin, cells, first, last);
    });
  }
}

}  // namespace acmix::ACMIX_ISA
