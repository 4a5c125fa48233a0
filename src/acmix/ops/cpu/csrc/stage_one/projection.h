// Stage I within a band: the projections of rows of the input, written where packing would put them. Here by products
// of vectors.
#pragma once

#include "stage_one/pairs.h"

namespace acmix::ACMIX_ISA {

// Weights of so many outputs, of each of queries, keys and values, stay in the second-level cache.
constexpr int64_t block_outputs = 128;

// Lanes [first, last) of a register, or zeros: lane l lies at place + l in rows of maps.
struct Segment {
  int64_t place, first, last;
  bool zeros;
};

// Where the lanes of registers lie that hold the cells of rows without what is between: those of a row follow those of
// the row before.
template <class T>
struct PackedCells {
  int64_t row_cells = 0, beside;  // of one row; zeros that taps read beside a map
  int64_t *starts, *ends;         // of the segments of every register; of those of the first rows
  Segment* segments;

  PackedCells(const MapLayout<T>& layout, int64_t rows, Arena<T>& arena)
      : beside(ceil_divide(layout.padding, layout.stride) * layout.interleave) {
    const int64_t registers = rows * layout.pitch / lanes<T>, runs = rows * layout.stride;
    // One for each register, and for each run of cells of one phase its end within a register and the zeros around it.
    const int64_t count = registers + runs * (1 + 2 * ceil_divide(beside, lanes<T>));
    starts = take_integers(arena, rows ? registers + 1 : 0);
    ends = take_integers(arena, rows ? rows + 1 : 0);
    segments = reinterpret_cast<Segment*>(take_integers(arena, count * static_cast<int64_t>(sizeof(Segment) / 8)));
  }

  int64_t registers(int64_t rows) const { return ceil_divide(rows * row_cells, lanes<T>); }

  // Make the tables of a strip, for up to `rows` rows.
  void aim(const MapLayout<T>& layout, const Strip& strip, int64_t rows) {
    const Columns& columns = layout.columns;
    int64_t cell = 0, count = 0, known = 0;
    auto clear_beside = [&](int64_t place) {
      for (int64_t x = 0; x < beside; x += lanes<T>)
        segments[count++] = {place + x, 0, least(lanes<T>, beside - x), true};
    };
    for (int64_t row = 0; row < rows; ++row) {
      ends[row] = count;
      for (int64_t phase = 0; phase < columns.stride; ++phase) {
        const int64_t place = row * layout.row + phase * columns.phase_pitch;
        const int64_t cells = columns.cells(strip.width(), phase), shift = place - cell, end = cell + cells;
        auto begin_register = [&] {
          if (cell < end && cell % lanes<T> == 0) starts[known++] = count;
        };
        begin_register();
        if (strip.begin == strip.first) clear_beside(place - beside);
        while (cell < end) {
          const int64_t lane = cell % lanes<T>, last = least(lanes<T>, lane + end - cell);
          segments[count++] = {shift + cell - lane, lane, last, false};
          cell += last - lane;
          begin_register();
        }
        if (strip.end == strip.last) clear_beside(place + cells);
      }
    }
    ends[rows] = starts[known] = count;
    row_cells = cell / rows;
  }
};

// Projections from `output` on that are computed in twos: output 2 j is `next` j behind it, its partner `partner`
// behind that. They are written from a line on.
struct OutputRun {
  int64_t output, next, partner, count, line;
};

// Those of the pass that begins at `head`: of queries, keys and values, as numbers, or as maps are paired.
template <class T>
static inline int64_t output_runs(const Mix& problem, const MapLayout<T>& layout, int64_t head, OutputRun* runs) {
  const int64_t size = problem.shape.head_size, maps = problem.shape.heads * size, heads = layout.heads;
  auto output = [&](int64_t map) { return map / heads * maps + (head + map % heads) * size; };
  int64_t count = 0;
  for (int64_t map = 0; !layout.paired && map < 3 * heads; map += heads)
    runs[count++] = {output(map), 2, 1, layout.channels, map * size};
  for (int64_t map = 0; layout.paired && map < 3 * heads; map += 2) {
    const bool alone = map + 1 == 3 * heads;
    runs[count++] = {output(map), alone ? 2 : 1, alone ? 1 : output(map + 1) - output(map), alone ? size : 2 * size,
                     layout.line_of(map, 0).line};
  }
  return count;
}

// A tile of sums, each begun with its output's bias, put where their cells lie, as numbers or two as pairs; `plane` is
// from line to line.
template <class T, class SumTerm, bool joined>
struct PlacedTile {
  using Term = SumTerm;
  const int64_t* starts;  // of the registers of the tile
  const Segment* segments;
  int64_t end;
  const OutputRun& run;
  const T* bias;
  T* to;
  int64_t plane;

  // Of registers from `first` on, of `rows` rows, and outputs from `m` of a run on.
  PlacedTile(const PackedCells<T>& cells, int64_t first, int64_t rows, const OutputRun& outputs, int64_t m,
             const T* biases, T* maps, int64_t pitch)
      : starts(cells.starts + first),
        segments(cells.segments),
        end(cells.ends[rows]),
        run(outputs),
        bias(biases ? biases + outputs.output + m / 2 * outputs.next : nullptr),
        to(maps + (outputs.line + (joined ? m / 2 : m)) * pitch),
        plane(pitch) {}

  Vector<T> begin(int64_t m) const { return splat(bias ? bias[m / 2 * run.next + m % 2 * run.partner] : T(0)); }

  template <int outputs, int vectors>
  void finish(const Vector<T> (&sum)[outputs][vectors]) const {
    constexpr int lines = joined ? (outputs + 1) / 2 : outputs;
#pragma GCC unroll 8
    for (int i = 0; i < vectors; ++i) {
      Vector<T> line[lines];
#pragma GCC unroll 8
      for (int m = 0; m < lines; ++m)
        if constexpr (joined)
          line[m] = join_pairs(sum[2 * m][i], 2 * m + 1 < outputs ? sum[2 * m + 1][i] : Vector<T>{});
        else
          line[m] = sum[m][i];
      for (int64_t s = starts[i]; s < least(starts[i + 1], end); ++s) {
        const Segment segment = segments[s];
#pragma GCC unroll 8
        for (int m = 0; m < lines; ++m)
          store_lanes<T>(to + m * plane + segment.place, segment.zeros ? Vector<T>{} : line[m], segment.first,
                         segment.last);
      }
    }
  }
};

// The input in panels, (tile of registers, channel or pair of channels, register): a matrix product reads it in this
// order.
template <class T>
struct VectorProjection {
  PackedCells<T> cells;
  int64_t rows, terms;  // terms: of the sums over channels
  bool paired;
  OutputRun* runs;  // of a pass
  T *line, *panels;

  VectorProjection(const Mix& problem, const MapLayout<T>& layout, int64_t most_rows, bool, Arena<T>& arena)
      : cells(layout, problem.projection.inputs ? most_rows : 0, arena),
        rows(most_rows),
        terms(count_terms<T>(problem)),
        paired(multiplies_pairs<T>(problem)) {
    line = arena.take(problem.projection.input.inner == 1 ? 0 : problem.projection.inputs * layout.pitch);
    panels = arena.take(terms * rows * layout.pitch);
    const int64_t room = ceil_divide(3 * layout.heads, layout.paired ? 2 : layout.heads);
    runs = reinterpret_cast<OutputRun*>(take_integers(arena, room * static_cast<int64_t>(sizeof(OutputRun) / 8)));
  }

  // Make the tables of a strip.
  void aim(const MapLayout<T>& layout, const Strip& strip) { cells.aim(layout, strip, rows); }
};

// Call f(place, lanes) for every register of the cells of rows, as for_registers does for those of a line: of the
// same cells without what lies between.
template <class T, class E, class F>
static inline void for_packed_registers(E* pixels, const Field& field, int64_t rows, int64_t width, const Weave& weave,
                                        const F& f) {
  E* lane[lanes<T>];
  int64_t filled = 0, place = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t phase = 0; phase < weave.stride; ++phase)
      for (int64_t x = phase; x < width; x += weave.stride)
        for (int64_t g = 0; g < weave.interleave; ++g) {
          lane[filled++] = g < weave.members ? pixels + row * field.row + x * field.column + g * field.batch : nullptr;
          if (filled < lanes<T>) continue;
          f(place++, lane);
          filled = 0;
        }
  if (!filled) return;
  for (; filled < lanes<T>; ++filled) lane[filled] = nullptr;
  f(place, lane);
}

// A register of pixels, by channels or by pairs of them.
template <class T, bool rectified, class E>
static inline void load_input(bool paired, const E* const* lane, int64_t inputs, int64_t ahead, T* to, int64_t pitch) {
  if (paired)
    load_pairs<T, rectified>(lane, inputs, ahead, to, pitch);
  else
    load_pixels<T, rectified>(lane, inputs, ahead, to, pitch);
}

// Cells of whole rows that follow each other in memory, of channels `channel` apart: the panels hold them as they lie.
template <class T, bool rectified, class E>
static void pack_plane(const VectorProjection<T>& scratch, int64_t inputs, int64_t cells, const E* from,
                       int64_t channel) {
  for (int64_t c = 0; c < scratch.terms; ++c)
    for (Tiles tile(ceil_divide(cells, lanes<T>), projected_vectors); tile.first < tile.registers; tile.next())
      for (int64_t i = 0; i < tile.size; ++i) {
        const int64_t first = (tile.first + i) * lanes<T>;
        auto load_channel = [&](int64_t j) {
          const Vector<T> values = load_some<T>(from + j * channel + first, cells - first);
          return rectified ? rectify<T>(values) : values;
        };
        store(scratch.panels + (tile.first * scratch.terms + c * tile.size + i) * lanes<T>,
              scratch.paired ? pair_channels<T>(2 * c, inputs, load_channel) : load_channel(c));
      }
}

// Rows [begin, end) of the input of a group of images.
template <class T>
static void pack_input(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& maps,
                       const VectorProjection<T>& scratch, int64_t group, int64_t begin, int64_t end) {
  const Field& field = problem.projection.input;
  const Columns& columns = layout.columns;
  const Strip& strip = maps.inputs;
  const int64_t inputs = problem.projection.inputs, members = layout.members(group, problem.shape.batch);
  const int64_t image = group * layout.interleave * field.batch;
  Tiles tiles(scratch.cells.registers(most(end - begin, 0)), projected_vectors);
  auto panel_of = [&](int64_t place) {
    if (place == tiles.first + tiles.size) tiles.next();
    return scratch.panels + (tiles.first * scratch.terms + place - tiles.first) * lanes<T>;
  };
  if (field.inner == 1) {
    const int64_t ahead = lanes<T> * columns.stride / columns.interleave * field.column;
    with_elements<T>(field, image + begin * field.row + strip.begin * field.column, [&](const auto* from) {
      for_packed_registers<T>(from, field, end - begin, strip.width(), columns.weave(members),
                              [&](int64_t place, const auto* lane) {
                                T* panel = panel_of(place);
                                const int64_t pitch = tiles.size * lanes<T>;
                                if (problem.ends.rectified_input)
                                  load_input<T, true>(scratch.paired, lane, inputs, ahead, panel, pitch);
                                else
                                  load_input<T, false>(scratch.paired, lane, inputs, ahead, panel, pitch);
                              });
    });
    return;
  }
  if (columns.direct() && field.column == 1 && field.row == strip.width() && strip.begin == 0) {
    const int64_t cells = most(end - begin, 0) * strip.width();
    with_elements<T>(field, image + begin * field.row, [&](const auto* from) {
      if (problem.ends.rectified_input)
        pack_plane<T, true>(scratch, inputs, cells, from, field.inner);
      else
        pack_plane<T, false>(scratch, inputs, cells, from, field.inner);
    });
    return;
  }
  int64_t cell = 0;
  for (int64_t row = begin; row < end; ++row) {
    pack_row(columns, maps, field, image + row * field.row, inputs, strip, members, scratch.line);
    if (problem.ends.rectified_input) rectify_run(scratch.line, inputs * layout.pitch);
    for (int64_t phase = 0; phase < columns.stride; ++phase) {
      const T* line = scratch.line + phase * columns.phase_pitch;
      for (int64_t count = columns.cells(strip.width(), phase), x = 0, run; x < count; x += run, cell += run) {
        const int64_t lane = cell % lanes<T>;
        run = least(count - x, lanes<T> - lane);
        T* panel = panel_of(cell / lanes<T>) + lane;
        for (int64_t c = 0; c < scratch.terms; ++c, panel += tiles.size * lanes<T>)
          if (scratch.paired)
            pair_run(line + 2 * c * layout.pitch + x, layout.pitch, least(2, inputs - 2 * c), run, panel);
          else
            copy_run(line + c * layout.pitch + x, run, panel);
      }
    }
  }
  // What fills the last register is no pixel, but must be a number.
  for (; cell % lanes<T>; ++cell) {
    T* panel = panel_of(cell / lanes<T>) + cell % lanes<T>;
    for (int64_t c = 0; c < scratch.terms; ++c) panel[c * tiles.size * lanes<T>] = 0;
  }
}

// Queries, keys and values of the heads from `head` on, for the `rows` rows that are packed, by weights of as many
// terms each; `to` is where column strip.begin of the first one lies. Zeros beside the map.
template <class T, class Term, bool joined>
static void project_terms(const Mix& problem, const MapLayout<T>& layout, const VectorProjection<T>& scratch,
                          const T* weight, int64_t head, int64_t rows, T* to) {
  const int64_t count = scratch.terms, registers = scratch.cells.registers(rows);
  const T* bias = static_cast<const T*>(problem.projection.bias);
  const int64_t runs = output_runs(problem, layout, head, scratch.runs);
  int64_t longest = 0;
  for (int64_t r = 0; r < runs; ++r) longest = most(longest, scratch.runs[r].count);
  for (int64_t block = 0; block < longest; block += block_outputs)
    for (Tiles tile(registers, projected_vectors); tile.first < registers; tile.next())
      for (const OutputRun* run = scratch.runs; run < scratch.runs + runs; ++run) {
        const Terms<T> terms = {scratch.panels + tile.first * count * lanes<T>,
                                tile.size * lanes<T>,
                                weight + run->output * count,
                                run->next * count,
                                run->partner * count,
                                count};
        for_output_tiles(block, least(block + block_outputs, run->count), tile.size, [&](int64_t m, int64_t outputs) {
          multiply_tile<T>(
              {&terms, 1, m, 0}, outputs, tile.size,
              PlacedTile<T, Term, joined>(scratch.cells, tile.first, rows, *run, m, bias, to, layout.pitch));
        });
      }
}

template <class T>
static void project_rows(const Mix& problem, const MapLayout<T>& layout, const VectorProjection<T>& scratch,
                         int64_t head, int64_t rows, T* to) {
  const void *packed = problem.projection.packed, *given = problem.projection.weight;
  if constexpr (in_pairs<T>)
    if (scratch.paired) {
      const T* weight = static_cast<const T*>(packed ? packed : given);
      if (layout.paired) return project_terms<T, Pairs<T>, true>(problem, layout, scratch, weight, head, rows, to);
      return project_terms<T, Pairs<T>, false>(problem, layout, scratch, weight, head, rows, to);
    }
  project_terms<T, Numbers<T>, false>(problem, layout, scratch, static_cast<const T*>(given), head, rows, to);
}

}  // namespace acmix::ACMIX_ISA
