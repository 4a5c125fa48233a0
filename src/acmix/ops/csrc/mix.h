// Both paths, forward. A task is a band of output rows of a group of images: its projections are brought into scratch
// once, a few heads at a time, both paths read them there, and the sum is written once.
//
// Scratch is (row, channel of q, k and v, column). Columns are split by their remainder modulo the stride ("phases"):
// column x lies at x / stride of phase x % stride, so that every window cell and every tap is a constant offset. Narrow
// maps of several images are interleaved (column x of image g at x * interleave + g), so that lanes are full at every
// width. Columns beyond the map are zeros while the convolution path runs and reflections while attention does.
#pragma once

#include "attention.h"
#include "convolve.h"

namespace acmix::ACMIX_ISA {

constexpr int64_t mix_cache_bytes = 3 << 19, shortest_run = 32;

static inline int64_t floor_divide(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

template <class T>
struct MapLayout {
  int64_t window, radius, stride, padding, halo;  // padding: radius of the taps; halo: the larger radius
  int64_t heads, channels;                        // of one pass
  int64_t interleave, groups, phase_pitch, key_pitch, query_pitch, key_row, query_row, margin;
  int64_t out_pitch, out_row, bands, band_rows, rows;

  explicit MapLayout(const Mix& problem) {
    const Shape& shape = problem.attention.shape;
    constexpr int64_t count = lanes<T>;
    window = problem.attention.window;
    radius = window / 2;
    stride = shape.stride;
    padding = problem.convolution.kernel ? problem.convolution.kernel_size / 2 : 0;
    halo = most(radius, padding);
    // Runs of channels long enough to read; mixtures are of all heads.
    for (heads = 1; heads < shape.heads; ++heads)
      if (shape.heads % heads == 0 && heads * shape.head_size >= shortest_run && !problem.convolution.positions) break;
    channels = heads * shape.head_size;
    interleave = choose_interleave(shape.width_out, shape.batch);
    groups = ceil_divide(shape.batch, interleave);
    const int64_t reach = ceil_divide(halo, stride) * interleave;
    margin = round_up(reach, count);
    phase_pitch = round_up(ceil_divide(shape.width, stride) * interleave + 2 * reach, count);
    key_pitch = query_pitch = stride * phase_pitch;
    // A register more: rows a multiple of 4 KiB apart would fall into the same sets of the cache.
    key_row = 3 * channels * key_pitch + count;
    query_row = stride * key_row;
    out_pitch = round_up(shape.width_out * interleave, count);
    out_row = shape.heads * shape.head_size * out_pitch;
    const int64_t row_bytes = (query_row + out_row) * static_cast<int64_t>(sizeof(T));
    const int64_t cached = most((mix_cache_bytes - 2 * halo * key_row * static_cast<int64_t>(sizeof(T))) / row_bytes,
                                ceil_divide(2 * halo + 1, stride));
    const int64_t shared = most(ceil_divide(shape.height_out, ceil_divide(problem.threads, groups)), tile_rows);
    bands = ceil_divide(shape.height_out, least(cached, shared));
    band_rows = ceil_divide(shape.height_out, bands);
    bands = ceil_divide(shape.height_out, band_rows);
    rows = stride * (band_rows - 1) + 1 + 2 * halo;
  }

  static int64_t choose_interleave(int64_t width, int64_t batch) {
    int64_t chosen = 1;
    auto wasteful = [&] { return 5 * chosen * width < 4 * round_up(chosen * width, lanes<T>); };
    while (wasteful() && 2 * chosen <= batch && (chosen < 4 || chosen * width < lanes<T>)) chosen *= 2;
    return chosen;
  }

  int64_t members(int64_t group, int64_t batch) const { return least(interleave, batch - group * interleave); }
  bool direct() const { return stride == 1 && interleave == 1; }
  // Where column x lies; x may lie in the halo.
  int64_t slot(int64_t x) const {
    const int64_t place = floor_divide(x, stride);
    return (x - place * stride) * phase_pitch + place * interleave;
  }
  int64_t cell_offset(int64_t cell) const { return slot(cell - radius); }
};

template <class T>
struct MixScratch {
  int64_t *target, *source, *taps, *in_places, *out_places, *mixed_from, *mixed_to;
  Step* steps;
  T *line, *logits, *slopes, *locations, *maps, *mixed, *output;
  int64_t line_pitch, tapped_row, tapped_plane, positions;

  MixScratch(const Mix& problem, const MapLayout<T>& layout, Arena<T>& arena) {
    const Shape& shape = problem.attention.shape;
    const Convolution& convolution = problem.convolution;
    constexpr int64_t count = lanes<T>, words = 8 / static_cast<int64_t>(sizeof(T));
    auto integers = [&](int64_t size) { return reinterpret_cast<int64_t*>(arena.take(size * words)); };
    const int64_t out_registers = layout.band_rows * layout.out_pitch / count;
    const int64_t mixed_registers = convolution.positions ? layout.rows * layout.key_pitch / count : 0;
    const int64_t mixed_size = convolution.positions * layout.rows * layout.key_pitch;
    target = integers(2 * layout.radius);
    source = integers(2 * layout.radius);
    taps = integers(convolution.kernel_size * convolution.kernel_size);
    in_places = integers(out_registers);
    out_places = integers(out_registers);
    mixed_from = integers(mixed_registers);
    mixed_to = integers(mixed_registers);
    steps = take_steps(layout, arena);
    line_pitch = round_up(shape.width, count);
    line = arena.take(layout.direct() ? 0 : shape.heads * shape.head_size * line_pitch);
    logits = arena.take(tile_rows * layout.window * layout.window * count);
    slopes = arena.take(tile_rows * 2 * count);
    locations = take_padded(layout, arena, layout.key_pitch);
    maps = take_padded(layout, arena, layout.rows * layout.key_row);
    mixed = take_padded(layout, arena, mixed_size);
    output = arena.take(layout.band_rows * layout.out_row);
    tapped_row = convolution.positions ? convolution.positions * layout.key_pitch : layout.key_row;
    tapped_plane = convolution.positions ? layout.key_pitch : shape.head_size * layout.key_pitch;
    positions = convolution.positions ? convolution.positions : 3 * layout.heads;
    if (arena.memory) fill(problem, layout);
  }

  // Registers at the ends of maps read, and drop, what lies before and behind: zeros, as denormal numbers are slow.
  T* take_padded(const MapLayout<T>& layout, Arena<T>& arena, int64_t size) {
    const int64_t margin = layout.margin + lanes<T>;
    T* part = arena.take(size + 2 * margin);
    if (!arena.memory) return nullptr;
    std::memset(part, 0, static_cast<size_t>(margin) * sizeof(T));
    std::memset(part + margin + size, 0, static_cast<size_t>(margin) * sizeof(T));
    return part + margin;
  }

  void fill(const Mix& problem, const MapLayout<T>& layout) {
    const Shape& shape = problem.attention.shape;
    constexpr int64_t count = lanes<T>;
    for (int64_t i = 0; i < 2 * layout.radius; ++i) {
      const int64_t x = i < layout.radius ? i - layout.radius : shape.width + i - layout.radius;
      target[i] = layout.slot(x);
      source[i] = layout.slot(reflect(x, shape.width));
    }
    if (problem.attention.position) {
      const T* x = static_cast<const T*>(problem.attention.column_location);
      std::memset(locations, 0, static_cast<size_t>(layout.key_pitch) * sizeof(T));
      for (int64_t c = -layout.radius; c < shape.width + layout.radius; ++c)
        for (int64_t g = 0; g < layout.interleave; ++g) locations[layout.slot(c) + g] = x[reflect(c, shape.width)];
    }
    const int64_t kernel = problem.convolution.kernel_size;
    for (int64_t t = 0; t < kernel * kernel; ++t)
      taps[t] = (t / kernel - layout.padding) * tapped_row + layout.slot(t % kernel - layout.padding);
    const int64_t across = layout.out_pitch / count, wide = layout.key_pitch / count;
    for (int64_t i = 0; i < layout.band_rows * across; ++i) {
      in_places[i] = i / across * layout.stride * tapped_row + i % across * count;
      out_places[i] = i / across * layout.out_row + i % across * count;
    }
    for (int64_t i = 0; problem.convolution.positions && i < layout.rows * wide; ++i) {
      mixed_from[i] = i / wide * layout.key_row + i % wide * count;
      mixed_to[i] = i / wide * tapped_row + i % wide * count;
    }
  }
};

template <class T>
static inline void clear(T* cells, int64_t from, int64_t to) {
  alignas(vector_bytes) static constexpr T zeros[lanes<T>] = {};
  for (; from + lanes<T> <= to; from += lanes<T>) store(cells + from, Vector<T>{});
  copy_run(zeros, to - from, cells + from);
}

// One row of `channels` channels of image g of the group, zeros beyond the map.
template <class T>
__attribute__((noinline)) static void pack_row(const MapLayout<T>& layout, const MixScratch<T>& scratch, const Field& field, int64_t offset,
                     int64_t channels, int64_t width, int64_t g, T* to) {
  T* line = layout.direct() ? to : scratch.line;
  const int64_t line_pitch = layout.direct() ? layout.key_pitch : scratch.line_pitch;
  load_lines(field, offset, field.inner, field.column, channels, width, line, line_pitch);
  for (int64_t c = 0; c < channels; ++c) {
    T* cells = to + c * layout.key_pitch;
    const T* values = line + c * line_pitch;
    if (layout.direct()) {
      clear(cells, width, layout.key_pitch);
    } else if (layout.interleave == 1) {
      split_phases(values, width, layout.stride, 0, cells, layout.phase_pitch);
      for (int64_t phase = 0; phase < layout.stride; ++phase)
        clear(cells + phase * layout.phase_pitch, phase < width ? ceil_divide(width - phase, layout.stride) : 0,
              layout.phase_pitch);
    } else {
      if (g == 0) clear(cells, 0, layout.key_pitch);
      for (int64_t phase = 0; phase < layout.stride; ++phase) {
        T* place = cells + phase * layout.phase_pitch + g;
        for (int64_t x = phase; x < width; x += layout.stride, place += layout.interleave) *place = values[x];
      }
    }
  }
}

// Rows [begin, end) of the map of the heads from `head` on: keys and values of all, queries where a path reads them.
template <class T>
static void pack_rows(const Mix& problem, const MapLayout<T>& layout, const MixScratch<T>& scratch, int64_t group,
                      int64_t head, int64_t begin, int64_t end) {
  const Shape& shape = problem.attention.shape;
  const Field* fields[] = {&problem.attention.query, &problem.attention.key, &problem.attention.value};
  // Mixtures are made of every row.
  const int64_t unused = problem.convolution.positions ? 0 : layout.halo - layout.padding;
  for (int64_t row = begin; row < end; ++row) {
    T* to = scratch.maps + (row - begin) * layout.key_row;
    const bool tapped = row >= begin + unused && row < end - unused;
    if (row < 0 || row >= shape.height) {
      // The end of a row is the halo of the next.
      clear(to, tapped ? 0 : layout.key_row - layout.margin, layout.key_row);
      continue;
    }
    clear(to, 3 * layout.channels * layout.key_pitch, layout.key_row);
    for (int64_t g = 0; g < layout.members(group, shape.batch); ++g)
      for (int64_t part = tapped ? 0 : 1; part < 3; ++part) {
        const Field& field = *fields[part];
        const int64_t offset =
            (group * layout.interleave + g) * field.batch + head * field.outer + row * field.row;
        // Heads that follow each other in memory are read as one run.
        const int64_t runs = field.outer == shape.head_size * field.inner ? 1 : layout.heads;
        const int64_t size = layout.channels / runs;
        for (int64_t run = 0; run < runs; ++run)
          pack_row(layout, scratch, field, offset + run * field.outer, size, shape.width, g,
                   to + (part * layout.channels + run * size) * layout.key_pitch);
      }
  }
  std::memset(scratch.maps + (end - begin) * layout.key_row, 0,
              static_cast<size_t>(layout.margin + lanes<T>) * sizeof(T));
}

// What the maps of the heads from `head` on give to the convolution path of the output rows [first, first + rows).
template <class T>
static void convolve_band(const Mix& problem, const MapLayout<T>& layout, const MixScratch<T>& scratch, int64_t head,
                          int64_t begin, int64_t end, int64_t first, int64_t rows) {
  const Convolution& convolution = problem.convolution;
  const Shape& shape = problem.attention.shape;
  const int64_t here = 0, taps = convolution.kernel_size * convolution.kernel_size;
  const int64_t inputs = convolution.positions ? convolution.positions : 3 * shape.heads;
  const T* kernel = static_cast<const T*>(convolution.kernel) + head * taps;
  const int64_t start = (layout.stride * first - begin) * scratch.tapped_row;
  for (int64_t d = 0; d < shape.head_size; ++d) {
    const T* tapped = scratch.maps + d * layout.key_pitch;
    if (convolution.positions) {
      const int64_t maps = 3 * shape.heads;
      convolve({tapped, shape.head_size * layout.key_pitch, maps, scratch.mixed_from}, &here, 1,
               Weights<T>{static_cast<const T*>(convolution.mixing), maps, maps},
               Planes<T>{scratch.mixed, layout.key_pitch, inputs, scratch.mixed_to},
               (end - begin) * layout.key_pitch / lanes<T>);
      tapped = scratch.mixed;
    }
    convolve({tapped + start, scratch.tapped_plane, scratch.positions, scratch.in_places}, scratch.taps, taps,
             Weights<T>{kernel + d * shape.heads * inputs * taps, inputs * taps,
                        convolution.positions ? inputs : layout.heads, shape.heads - layout.heads},
             Planes<T>{scratch.output + d * shape.heads * layout.out_pitch, layout.out_pitch, shape.heads,
                       scratch.out_places, head > 0},
             rows * layout.out_pitch / lanes<T>);
  }
}

// Fill the halo columns of keys and values by reflection.
template <class T>
__attribute__((noinline)) static void reflect_columns(const MapLayout<T>& layout, const MixScratch<T>& scratch, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    T* cells = scratch.maps + row * layout.key_row + layout.channels * layout.key_pitch;
    for (int64_t c = 0; c < 2 * layout.channels; ++c, cells += layout.key_pitch)
      for (int64_t i = 0; i < 2 * layout.radius; ++i) {
        T* to = cells + scratch.target[i];
        const T* from = cells + scratch.source[i];
        to[0] = from[0];
        for (int64_t g = 1; g < layout.interleave; ++g) to[g] = from[g];
      }
  }
}

// - W_p . q of a tile of queries, `(tile row, 2, lane)`: how the logits fall with a key's location.
template <class T>
static void locate(const Attention& problem, const MapLayout<T>& layout, int64_t rows, const T* query, T* slopes) {
  const T* weight = static_cast<const T*>(problem.position);
  for (int64_t a = 0; a < rows; ++a) {
    Vector<T> across = {}, down = {};
    for (int64_t d = 0; d < problem.shape.head_size; ++d) {
      const Vector<T> q = load(query + a * layout.query_row + d * layout.query_pitch);
      across -= q * weight[2 * d];
      down -= q * weight[2 * d + 1];
    }
    store(slopes + 2 * a * lanes<T>, across);
    store(slopes + (2 * a + 1) * lanes<T>, down);
  }
}

// Attention of the head in place `place` of the pass that begins at `head`, added to or put into the output rows
// [first, last).
template <class T>
static void attend_head(const Mix& problem, const MapLayout<T>& layout, const MixScratch<T>& scratch, int64_t head,
                        int64_t place, int64_t begin, int64_t first, int64_t last) {
  const Attention& attention = problem.attention;
  const Shape& shape = attention.shape;
  const int64_t head_size = shape.head_size, cells = layout.window * layout.window;
  const T* queries = scratch.maps + place * head_size * layout.key_pitch;
  const T* key = queries + layout.channels * layout.key_pitch;
  const T* value = key + layout.channels * layout.key_pitch;
  T* output = scratch.output + (head + place) * head_size * layout.out_pitch;
  const T scale = logit_scale<T>(head_size);
  for (int64_t y = first; y < last; y += tile_rows) {
    const int64_t rows = least(tile_rows, last - y);
    const T* query = queries + (layout.stride * y - begin) * layout.key_row;
    window_steps(layout, shape, y, rows, begin, scratch.steps);
    for (int64_t x = 0; x < layout.out_pitch; x += lanes<T>) {
      Location<T> location = {};
      if (attention.position) {
        locate(attention, layout, rows, query + x, scratch.slopes);
        location = {scratch.slopes, scratch.locations + x, static_cast<const T*>(attention.row_location)};
      }
      dot_window(layout, head_size, scratch.steps, rows, query + x, key + x, location, scratch.logits);
      Vector<T> factor[tile_rows];
      for (int64_t a = 0; a < rows; ++a)
        factor[a] = static_cast<T>(attention.rate) * exponentiate(scratch.logits + a * cells * lanes<T>, cells, scale);
      attend_tile(layout, head_size, scratch.steps, rows, scratch.logits, factor, value + x,
                  Tile<T>{output + (y - first) * layout.out_row + x, layout.out_row, layout.out_pitch,
                          problem.convolution.kernel != nullptr});
    }
  }
}

// Write one row of all channels of the output.
template <class T>
static void unpack_row(const Mix& problem, const MapLayout<T>& layout, const MixScratch<T>& scratch, int64_t group,
                       int64_t row, const T* from) {
  const Shape& shape = problem.attention.shape;
  const Field& field = problem.output;
  const int64_t channels = shape.heads * shape.head_size;
  for (int64_t g = 0; g < layout.members(group, shape.batch); ++g) {
    const T* line = from;
    if (layout.interleave > 1) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t x = 0; x < shape.width_out; ++x)
          scratch.line[c * scratch.line_pitch + x] = from[c * layout.out_pitch + x * layout.interleave + g];
      line = scratch.line;
    }
    store_lines(line, layout.interleave > 1 ? scratch.line_pitch : layout.out_pitch, field,
                (group * layout.interleave + g) * field.batch + row * field.row, field.inner, field.column,
                channels, shape.width_out, false);
  }
}

template <class T>
static int64_t mix_tasks(const Mix& problem) {
  const MapLayout<T> layout(problem);
  return layout.groups * layout.bands;
}

template <class T>
static void mix_forward(const Mix& problem, int64_t first_task, int64_t last_task) {
  const Shape& shape = problem.attention.shape;
  const MapLayout<T> layout(problem);
  Arena<T> arena;
  MixScratch<T>(problem, layout, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T))), 0};
  const MixScratch<T> scratch(problem, layout, arena);
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t group = task / layout.bands, first = task % layout.bands * layout.band_rows;
    const int64_t last = least(first + layout.band_rows, shape.height_out);
    const int64_t begin = layout.stride * first - layout.halo, end = layout.stride * (last - 1) + 1 + layout.halo;
    for (int64_t head = 0; head < shape.heads; head += layout.heads) {
      pack_rows(problem, layout, scratch, group, head, begin, end);
      if (problem.convolution.kernel) convolve_band(problem, layout, scratch, head, begin, end, first, last - first);
      if (!layout.window) continue;
      reflect_columns(layout, scratch, most(0, -begin), least(shape.height, end) - begin);
      for (int64_t place = 0; place < layout.heads; ++place)
        attend_head(problem, layout, scratch, head, place, begin, first, last);
    }
    for (int64_t row = first; row < last; ++row)
      unpack_row(problem, layout, scratch, group, row, scratch.output + (row - first) * layout.out_row);
  }
}

}  // namespace acmix::ACMIX_ISA
