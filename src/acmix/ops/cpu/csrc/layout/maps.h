// Maps in scratch, `(row, channel of q, k and v, column)`, for both paths and both passes.
//
// Columns are split by their remainder modulo the stride ("phases"): column x lies at x / stride of phase x % stride,
// so that every window cell and every tap is a constant offset. Narrow maps of several images are interleaved (column x
// of image g at x * interleave + g), so that lanes are full at every width. Wide maps are cut into strips of columns.
// Where products are of pairs of bfloat16, forward, a line holds two maps. A row's halo is the room behind the rows
// before and after it: the strip's neighbours or, beyond the map, zeros while the convolution path runs and reflections
// while attention does.
#pragma once

#include "layout/lines.h"

namespace acmix::ACMIX_ISA {

constexpr int64_t shortest_run = 32, narrowest_strip = 64, widest_strip = 128;

static inline int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

static inline int64_t reflect(int64_t position, int64_t size) {
  if (size == 1) return 0;
  const int64_t period = 2 * (size - 1);
  const int64_t wrapped = ((position % period) + period) % period;
  return wrapped < size ? wrapped : period - wrapped;
}

// The columns of one channel of one row.
struct Columns {
  int64_t stride, interleave, phase_pitch;

  int64_t pitch() const { return stride * phase_pitch; }
  bool direct() const { return stride == 1 && interleave == 1; }
  Weave weave(int64_t members) const { return {stride, interleave, phase_pitch, members}; }
  // How many cells of a phase a map of `width` columns fills.
  int64_t cells(int64_t width, int64_t phase) const {
    return phase < width ? ceil_divide(width - phase, stride) * interleave : 0;
  }
  // Where column x lies; x may lie in the halo. Divisions are slow.
  int64_t slot(int64_t x) const {
    if (stride == 1) return x * interleave;
    const int64_t place = floor_divide(x, stride);
    return (x - place * stride) * phase_pitch + place * interleave;
  }
};

// Columns [first, last) of a map belong to a strip, [begin, end) are read into scratch; column first lies at 0.
struct Strip {
  int64_t first, last, begin, end;

  int64_t size() const { return last - first; }
  int64_t width() const { return end - begin; }
};

// Whether numbers are multiplied in pairs of bfloat16: what is read is no wider.
template <class T>
static inline bool multiplies_pairs(const Mix& problem) {
  const Field& from = problem.projection.inputs ? problem.projection.input : problem.query;
  return in_pairs<T> && from.element == Element::bfloat16;
}

// Where the cells of one channel of a map lie: as the first (0) or second (1) numbers of a line of pairs.
struct MapHalf {
  int64_t line;
  int half;
};

template <class T>
struct MapLayout {
  int64_t window, radius, stride, padding, halo;  // padding: radius of the taps; halo: the larger radius
  int64_t heads, channels, passes;                // heads and channels of q, k or v that are in scratch at once
  int64_t strip, strips;                          // output columns of a strip
  int64_t interleave, groups, reach, margin;      // reach: cells of a halo
  Columns columns;
  bool paired;                    // whether lines hold pairs: of maps 2 p and 2 p + 1, or of channels of a last one
  int64_t lines, pairs;           // of the maps of a pass; of channels of a head, 0 where there are none
  int64_t pitch, row, out_pitch;  // cells from channel to channel, from row to row, computed for each output channel

  // Strips of at most `widest` output columns, which see `radii` radii of the window beyond their own. Pairs of images
  // also fill the last register of a row, as long as there are `wanted` pairs; 0 for never. `pairing`: lines hold pairs
  // where products are of them.
  MapLayout(const Mix& problem, int64_t widest, int64_t radii, int64_t wanted, bool pairing) {
    const Shape& shape = problem.shape;
    constexpr int64_t count = lanes<T>;
    window = problem.attention.window;
    radius = window / 2;
    stride = shape.stride;
    padding = problem.convolution.kernel ? problem.convolution.kernel_size / 2 : 0;
    halo = most(radius, padding);
    // Runs of channels long enough to read or to fill the tiles that project them, heads in twos where the convolution
    // path is in pairs, as each has three maps; mixtures are of all heads.
    paired = pairing && multiplies_pairs<T>(problem);
    const int64_t shortest = problem.projection.inputs && !in_tiles<T> && !paired ? 1 : shortest_run;
    const int64_t together = paired && problem.convolution.kernel && shape.heads % 2 == 0 ? 2 : 1;
    for (heads = together; heads < shape.heads; heads += together)
      if (shape.heads % heads == 0 && heads * shape.head_size >= shortest && !problem.convolution.positions) break;
    channels = heads * shape.head_size;
    passes = shape.heads / heads;
    const int64_t border = most(radii * radius, padding);
    strips = ceil_divide(shape.width_out, most(widest, most(narrowest_strip, border)));
    // Whole registers: what sums over them must not see a neighbour's columns.
    strip = strips > 1 ? round_up(ceil_divide(shape.width_out, strips), count) : shape.width_out;
    strips = ceil_divide(shape.width_out, strip);
    interleave = strips > 1 ? 1 : choose_interleave(shape.width_out, shape.batch, wanted);
    groups = ceil_divide(shape.batch, interleave);
    reach = ceil_divide(strips > 1 ? border : halo, stride) * interleave;
    margin = round_up(reach, count);
    columns = {stride, interleave, round_up(strip * interleave + 2 * reach, count)};
    pitch = columns.pitch();
    lines = paired ? 3 * heads / 2 * shape.head_size + 3 * heads % 2 * ceil_divide(shape.head_size, 2) : 3 * channels;
    pairs = paired && window ? ceil_divide(shape.head_size, 2) : 0;
    // A register more: rows a multiple of 4 KiB apart would fall into the same sets of the cache.
    row = lines * pitch + count;
    out_pitch = round_up(strip * interleave, count);
  }

  static int64_t choose_interleave(int64_t width, int64_t batch, int64_t wanted) {
    int64_t chosen = 1;
    auto filled = [&](int64_t images) { return round_up(images * width, lanes<T>); };
    while (5 * chosen * width < 4 * filled(chosen) && 2 * chosen <= batch && (chosen < 4 || chosen * width < lanes<T>))
      chosen *= 2;
    const bool fuller = chosen == 1 && 10 * filled(2) < 19 * filled(1);
    return fuller && wanted && 2 * wanted <= batch ? 2 : chosen;
  }

  // Of paired maps, where channel d of map c of a pass lies.
  MapHalf line_of(int64_t c, int64_t d) const {
    const int64_t size = channels / heads, alone = 3 * heads / 2 * 2;
    if (c < alone) return {c / 2 * size + d, static_cast<int>(c % 2)};
    return {alone / 2 * size + d / 2, static_cast<int>(d % 2)};
  }
  // Of a row, without what lies behind its maps.
  int64_t maps_size() const { return lines * pitch; }
  int64_t members(int64_t group, int64_t batch) const { return least(interleave, batch - group * interleave); }
  int64_t cell_offset(int64_t cell) const { return columns.slot(cell - radius); }
  // Of a row of a window, those of a phase.
  int64_t window_cells(int64_t phase) const { return stride == 1 ? window : ceil_divide(window - phase, stride); }
  // Of a map `width` columns wide, `step` for each output column.
  Strip strip_of(int64_t index, int64_t width, int64_t step) const {
    const int64_t first = index * strip * step, last = least(first + strip * step, width);
    return {first, last, most(0, first - step * reach), least(width, last + step * reach)};
  }
};

template <class T>
static int64_t* take_integers(Arena<T>& arena, int64_t size) {
  return reinterpret_cast<int64_t*>(arena.take(size * (8 / static_cast<int64_t>(sizeof(T)))));
}

// Registers at the ends of maps read, and drop, what lies before and behind: zeros, as denormal numbers are slow.
template <class T>
static T* take_padded(Arena<T>& arena, int64_t size, int64_t margin) {
  margin += lanes<T>;
  T* part = arena.take(size + 2 * margin);
  if (!arena.memory) return nullptr;
  std::memset(part, 0, static_cast<size_t>(margin) * sizeof(T));
  std::memset(part + margin + size, 0, static_cast<size_t>(margin) * sizeof(T));
  return part + margin;
}

template <class T>
static inline void clear(T* cells, int64_t from, int64_t to) {
  alignas(vector_bytes) static constexpr T zeros[lanes<T>] = {};
  for (; from + lanes<T> <= to; from += lanes<T>) store(cells + from, Vector<T>{});
  copy_run(zeros, to - from, cells + from);
}

template <class T>
struct MapScratch {
  int64_t *target, *source;  // of every column beyond the map: its place and the place of the column that it mirrors
  T *line, *locations, *maps;
  int64_t line_pitch, mirrored = 0, aimed = -1;
  Strip inputs, outputs;  // columns of the maps and of the output or its gradient

  MapScratch(const Mix& problem, const MapLayout<T>& layout, int64_t rows, Arena<T>& arena) {
    const Shape& shape = problem.shape;
    target = take_integers(arena, 2 * layout.radius);
    source = take_integers(arena, 2 * layout.radius);
    line_pitch = round_up(least(shape.width, layout.stride * (layout.strip + 2 * layout.reach)), lanes<T>);
    const int64_t channels = most(shape.heads * shape.head_size, problem.projection.inputs);
    line = arena.take(layout.columns.direct() ? 0 : channels * line_pitch);
    locations = take_padded(arena, layout.pitch, layout.margin);
    maps = take_padded(arena, rows * layout.row, layout.margin);
  }

  // Make the tables of a strip; false if they are made already.
  bool aim(const Mix& problem, const MapLayout<T>& layout, int64_t strip) {
    if (strip == aimed) return false;
    aimed = strip;
    const int64_t width = problem.shape.width, border = layout.reach / layout.interleave * layout.stride;
    inputs = layout.strip_of(strip, width, layout.stride);
    outputs = layout.strip_of(strip, problem.shape.width_out, 1);
    mirrored = 0;
    for (int64_t i = 0; i < 2 * layout.radius; ++i) {
      const int64_t x = i < layout.radius ? i - layout.radius : width + i - layout.radius;
      if (x < inputs.first - border || x >= inputs.last + border) continue;
      target[mirrored] = layout.columns.slot(x - inputs.first);
      source[mirrored++] = layout.columns.slot(reflect(x, width) - inputs.first);
    }
    const T* x = static_cast<const T*>(problem.attention.column_location);
    clear(locations, 0, layout.pitch);
    for (int64_t c = inputs.first - border; c < inputs.last + border; ++c)
      for (int64_t g = 0; g < layout.interleave; ++g)
        locations[layout.columns.slot(c - inputs.first) + g] = x[reflect(c, width)];
    return true;
  }
};

// One row of `channels` channels of image g of a group, zeros beyond the map. `to` is where column strip.begin lies.
template <class T>
static void pack_image(const Columns& columns, const MapScratch<T>& scratch, const Field& field, int64_t offset,
                       int64_t channels, const Strip& strip, int64_t g, T* to) {
  const int64_t pitch = columns.pitch(), line_pitch = columns.direct() ? pitch : scratch.line_pitch;
  const int64_t width = strip.width();
  T* line = columns.direct() ? to : scratch.line;
  load_lines(field, offset, field.inner, field.column, channels, width, line, line_pitch);
  for (int64_t c = 0; c < channels; ++c) {
    T* cells = to + c * pitch;
    const T* values = line + c * line_pitch;
    if (columns.direct()) {
      clear(cells, width, pitch);
    } else if (columns.interleave == 1) {
      split_phases(values, width, columns.stride, cells, columns.phase_pitch);
      for (int64_t phase = 0; phase < columns.stride; ++phase)
        clear(cells + phase * columns.phase_pitch, columns.cells(width, phase), columns.phase_pitch);
    } else {
      if (g == 0) clear(cells, 0, pitch);
      for (int64_t phase = 0; phase < columns.stride; ++phase) {
        T* place = cells + phase * columns.phase_pitch + g;
        for (int64_t x = phase; x < width; x += columns.stride, place += columns.interleave) *place = values[x];
      }
    }
  }
}

// The same of all images of a group.
template <class T>
static void pack_row(const Columns& columns, const MapScratch<T>& scratch, const Field& field, int64_t offset,
                     int64_t channels, const Strip& strip, int64_t members, T* to) {
  offset += strip.begin * field.column;
  if (field.inner == 1 && field.column != 1) {
    with_elements<T>(field, offset, [&](const auto* from) {
      load_transposed<T>(from, field.batch, field.column, channels, strip.width(), columns.weave(members), to,
                         columns.pitch());
    });
  } else {
    for (int64_t g = 0; g < members; ++g)
      pack_image(columns, scratch, field, offset + g * field.batch, channels, strip, g, to);
  }
}

// The way back, of the strip's own columns.
template <class T>
static void unpack_image(const Columns& columns, const MapScratch<T>& scratch, const T* from, const Field& field,
                         int64_t offset, int64_t channels, const Strip& strip, int64_t g) {
  const int64_t pitch = columns.pitch(), line_pitch = columns.direct() ? pitch : scratch.line_pitch;
  const int64_t width = strip.size();
  for (int64_t c = 0; c < channels && !columns.direct(); ++c) {
    const T* cells = from + c * pitch;
    T* values = scratch.line + c * line_pitch;
    if (columns.interleave == 1) {
      join_phases(cells, columns.phase_pitch, width, columns.stride, values);
    } else {
      for (int64_t phase = 0; phase < columns.stride; ++phase) {
        const T* place = cells + phase * columns.phase_pitch + g;
        for (int64_t x = phase; x < width; x += columns.stride, place += columns.interleave) values[x] = *place;
      }
    }
  }
  store_lines(columns.direct() ? from : scratch.line, line_pitch, field, offset, field.inner, field.column, channels,
              width);
}

template <class T>
static void unpack_row(const Columns& columns, const MapScratch<T>& scratch, const T* from, const Field& field,
                       int64_t offset, int64_t channels, const Strip& strip, int64_t members) {
  offset += strip.first * field.column;
  if (field.inner == 1 && field.column != 1) {
    with_elements<T>(field, offset, [&](auto* to) {
      store_transposed<T>(from, columns.pitch(), to, field.batch, field.column, channels, strip.size(),
                          columns.weave(members));
    });
  } else {
    for (int64_t g = 0; g < members; ++g)
      unpack_image(columns, scratch, from, field, offset + g * field.batch, channels, strip, g);
  }
}

// Call f(first channel, channels, offset) for the channels of the heads from `head` on in one row from an image on:
// once if heads follow each other in memory.
template <class T, class F>
static inline void for_runs(const MapLayout<T>& layout, const Field& field, int64_t image, int64_t head, int64_t row,
                            const F& f) {
  const int64_t head_size = layout.channels / layout.heads;
  const int64_t runs = field.outer == head_size * field.inner ? 1 : layout.heads, size = layout.channels / runs;
  for (int64_t run = 0; run < runs; ++run)
    f(run * size, size, image * field.batch + (head + run) * field.outer + row * field.row);
}

// Rows [begin, end) of maps, queries of rows [first, last) alone; row `origin` is the first in scratch.
struct RowSpan {
  int64_t origin, begin, end, first, last;
};

// Where column strip.begin of a row lies.
template <class T>
static inline T* row_of(const MapLayout<T>& layout, const MapScratch<T>& scratch, int64_t row) {
  return scratch.maps + (scratch.inputs.begin - scratch.inputs.first) / layout.stride + row * layout.row;
}

// Room for rows, of which those beyond the map are zeros where there are queries: clears what nobody else writes.
template <class T>
static void clear_rows(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& scratch,
                       const RowSpan& rows) {
  const int64_t behind = most(layout.margin, lanes<T>);
  // Reflections may lie before rows that are kept and the first of the others.
  for (int64_t row = 0; row <= rows.begin - rows.origin; ++row)
    clear(scratch.maps + row * layout.row, -layout.margin, 0);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    T* to = row_of(layout, scratch, row - rows.origin);
    const bool tapped = row >= rows.first && row < rows.last;
    if (row < 0 || row >= problem.shape.height) {
      // The end of a row is the halo of the next.
      clear(to, tapped ? 0 : layout.row - layout.margin, layout.row);
      continue;
    }
    clear(to, layout.row - behind, layout.row);
    // Without queries before them, the first key's halo is left over from another task.
    if (!tapped) clear(to, layout.channels * layout.pitch - layout.reach, layout.channels * layout.pitch);
  }
  clear(row_of(layout, scratch, rows.end - rows.origin), 0, layout.margin + lanes<T>);
}

// One row of the maps of the heads from `head` on, of queries (0), keys and values from `part` on, as numbers.
template <class T>
static void pack_maps(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& scratch, int64_t group,
                      int64_t head, int64_t row, int64_t part, T* to) {
  const Field* fields[] = {&problem.query, &problem.key, &problem.value};
  for (; part < 3; ++part)
    for_runs(layout, *fields[part], group * layout.interleave, head, row,
             [&](int64_t channel, int64_t channels, int64_t offset) {
               pack_row(layout.columns, scratch, *fields[part], offset, channels, scratch.inputs,
                        layout.members(group, problem.shape.batch),
                        to + (part * layout.channels + channel) * layout.pitch);
             });
}

// Rows of them.
template <class T>
static void pack_rows(const Mix& problem, const MapLayout<T>& layout, const MapScratch<T>& scratch, int64_t group,
                      int64_t head, const RowSpan& rows) {
  clear_rows(problem, layout, scratch, rows);
  for (int64_t row = most(rows.begin, 0); row < least(rows.end, problem.shape.height); ++row)
    pack_maps(problem, layout, scratch, group, head, row, row >= rows.first && row < rows.last ? 0 : 1,
              row_of(layout, scratch, row - rows.origin));
}

// Fill the columns beyond the map of keys and values, and of queries in a line with keys, of rows [first, last) of
// scratch by reflection.
template <class T>
static void reflect_columns(const MapLayout<T>& layout, const MapScratch<T>& scratch, int64_t first, int64_t last) {
  constexpr int64_t block = 8;
  const int64_t begin = layout.paired ? layout.line_of(layout.heads, 0).line : layout.channels;
  const int64_t lines = layout.lines - begin, pitch = layout.pitch;
  auto copy = [pitch](const T* from, T* to, int64_t count) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int64_t d = 0; d < count; ++d) to[d * pitch] = from[d * pitch];
  };
  for (int64_t row = first; scratch.mirrored && row < last; ++row) {
    T* cells = scratch.maps + row * layout.row + begin * pitch;
    // A few lines at a time, whose cache lines stay.
    for (int64_t c = 0; c < lines; c += block, cells += block * pitch)
      for (int64_t i = 0; i < scratch.mirrored; ++i)
        for (int64_t g = 0; g < layout.interleave; ++g) {
          T* to = cells + scratch.target[i] + g;
          const T* from = cells + scratch.source[i] + g;
          if (lines - c >= block)
            copy(from, to, block);
          else
            copy(from, to, lines - c);
        }
  }
}

}  // namespace acmix::ACMIX_ISA
