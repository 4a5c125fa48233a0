// Local attention, backward: softmax weights and their gradients are made again a few query rows at a time, kept in a
// ring of rows, and gathered by tiles of keys (no atomics: bitwise the same for any number of threads).
#pragma once

#include "window.h"

namespace acmix::ACMIX_ISA {

template <class T>
struct BackwardScratch {
  Columns<T> columns;
  Step* steps;
  int64_t ring_rows, ring_row;
  T *weights, *slopes, *query_gradient, *key, *value, *query, *gradient, *key_gradient, *value_gradient;
  T *ring_weights, *ring_slopes, *position_sums;

  BackwardScratch(const Layout<T>& layout, const Shape& shape, Arena<T>& arena) : columns(layout, shape, arena) {
    const int64_t cells = layout.window * layout.window, longest = layout.band_rows + layout.window;
    const int64_t key_rows = least(shape.height, longest + 4 * layout.window) * shape.head_size * layout.key_pitch;
    const int64_t query_rows =
        least(shape.height_out, longest + 2 * layout.window) * shape.head_size * layout.query_pitch;
    const int64_t padded_rows = (longest + layout.window) * shape.head_size * layout.key_pitch;
    ring_row = cells * layout.query_pitch;
    ring_rows = (layout.window - 1) / layout.stride + 2 * tile_rows + 2;
    steps = take_steps(layout, arena);
    weights = arena.take(tile_rows * cells * lanes<T>);
    slopes = arena.take(tile_rows * cells * lanes<T>);
    query_gradient = arena.take(tile_rows * shape.head_size * layout.query_pitch);
    key = arena.take(key_rows);
    value = arena.take(key_rows);
    query = arena.take(query_rows);
    gradient = arena.take(query_rows);
    key_gradient = arena.take(padded_rows);
    value_gradient = arena.take(padded_rows);
    position_sums = arena.take(2 * shape.head_size * lanes<T>);
    ring_weights = arena.take(ring_rows * ring_row);
    ring_slopes = arena.take(ring_rows * ring_row);
  }
};

// Key rows that the windows of query rows [first, last) touch.
struct RowRange {
  int64_t first, last;

  template <class T>
  RowRange(const Layout<T>& layout, const Shape& shape, int64_t query_first, int64_t query_last) {
    first = shape.height;
    last = 0;
    const int64_t end = layout.stride * (query_last - 1) + layout.window - layout.radius;
    for (int64_t y = layout.stride * query_first - layout.radius; y < end; ++y) {
      const int64_t row = reflect(y, shape.height);
      first = least(first, row);
      last = most(last, row + 1);
    }
  }
};

// What one band of key rows [first, last) of a group needs: padded key rows, query rows and the keys of those queries.
struct BandRows {
  int64_t first, last, padded_first, padded_last, query_first, query_last, own_first, own_last;

  template <class T>
  BandRows(const Layout<T>& layout, const Shape& shape, int64_t band) {
    first = band * layout.band_rows;
    last = layout.last_row(shape, band);
    padded_first = band == 0 ? 0 : first + layout.radius;
    padded_last = band == layout.bands - 1 ? shape.height + 2 * layout.radius : last + layout.radius;
    query_first = most(0, ceil_divide(padded_first - layout.window + 1 + layout.stride * layout.window, layout.stride) -
                              layout.window);
    query_last = least(shape.height_out, (padded_last - 1) / layout.stride + 1);
    own_first = ceil_divide(first, layout.stride);
    own_last = ceil_divide(last, layout.stride);
  }
};

// Softmax weights (times the rate) and slopes d loss / d logit of a tile of queries at one register of columns; the
// sum of the unscaled row products is the gradient of the rate.
template <class T>
static Vector<T> differentiate(const Layout<T>& layout, const BackwardScratch<T>& scratch, T rate, int64_t rows,
                               int64_t y, int64_t column, bool own) {
  constexpr int64_t count = lanes<T>;
  const int64_t cells = layout.window * layout.window;
  Vector<T> rate_gradient = {};
  for (int64_t a = 0; a < rows; ++a) {
    T *weights = scratch.weights + a * cells * count, *slopes = scratch.slopes + a * cells * count;
    const int64_t ring = (y + a) % scratch.ring_rows * scratch.ring_row + column;
    const Vector<T> inverse = exponentiate(weights, cells, T(1));
    Vector<T> delta = {};
    for (int64_t j = 0; j < cells; ++j) delta += load(weights + j * count) * load(slopes + j * count);
    delta *= inverse;
    if (own) rate_gradient += delta;
    const Vector<T> factor = inverse * rate;
    for (int64_t j = 0; j < cells; ++j) {
      const Vector<T> weight = factor * load(weights + j * count);
      const Vector<T> slope = weight * (load(slopes + j * count) - delta);
      store(slopes + j * count, slope);
      store(scratch.ring_weights + ring + j * layout.query_pitch, weight);
      store(scratch.ring_slopes + ring + j * layout.query_pitch, slope);
    }
  }
  return rate_gradient;
}

// Steps of the key rows padded_row + stride * a, a < rows, over the query rows that see them; returns their number.
template <class T>
static int64_t gather_steps(const Layout<T>& layout, const BackwardScratch<T>& scratch, int64_t head_size,
                            const BandRows& band, int64_t padded_row, int64_t rows, Step* steps) {
  const int64_t window = layout.window, stride = layout.stride;
  const int64_t lowest = padded_row - window + 1 <= 0 ? 0 : ceil_divide(padded_row - window + 1, stride);
  const int64_t first = most(band.query_first, lowest);
  const int64_t last = least(band.query_last, (padded_row + stride * (rows - 1)) / stride + 1);
  int64_t used = 0;
  for (int64_t y = first; y < last; ++y) {
    const int64_t offset = padded_row - stride * y;
    steps[used++] = {offset < 0 ? ceil_divide(-offset, stride) : 0, least(rows - 1, (window - 1 - offset) / stride),
                     y % scratch.ring_rows * scratch.ring_row + offset * window * layout.query_pitch,
                     (y - band.query_first) * head_size * layout.query_pitch, y};
  }
  return used;
}

template <class T, int channels>
static inline void gather_channels(const Layout<T>& layout, const Step* steps, int64_t step_count, int64_t rows,
                                   int64_t phase, int64_t head_size, const T* weight, const T* value, T* to) {
  const int64_t stride = layout.stride, window = layout.window, pitch = layout.query_pitch;
  Vector<T> sum[tile_rows][channels] = {};
  if (phase < window)
    add_steps<T, channels>(sum, steps, step_count, weight + phase * pitch, stride * window * pitch,
                           stride * pitch - layout.interleave, value, -layout.interleave, pitch,
                           (window - phase + stride - 1) / stride);
  for (int a = 0; a < tile_rows; ++a)
    if (a < rows)
      for (int j = 0; j < channels; ++j) store(to + (a * stride * head_size + j) * layout.key_pitch, sum[a][j]);
}

// Gradients of a tile of keys (or values): the weighted sum of the queries (or output gradients) that see them.
template <class T>
static void gather_tile(const Layout<T>& layout, const Step* steps, int64_t step_count, int64_t rows,
                        int64_t head_size, const T* weight, const T* value, T* to) {
  const int64_t width = ceil_divide(layout.padded_width, layout.stride) * layout.interleave;
  for (int64_t phase = 0; phase < layout.stride; ++phase)
    for (int64_t x = 0; x < width; x += lanes<T>) {
      const T *w = weight + layout.margin + x, *v = value + layout.margin + x;
      T* out = to + phase * layout.phase_pitch + x;
      int64_t d = 0;
      for (; d + tile_channels <= head_size; d += tile_channels)
        gather_channels<T, tile_channels>(layout, steps, step_count, rows, phase, head_size, w,
                                          v + d * layout.query_pitch, out + d * layout.key_pitch);
      for (; d < head_size; ++d)
        gather_channels<T, 1>(layout, steps, step_count, rows, phase, head_size, w, v + d * layout.query_pitch,
                              out + d * layout.key_pitch);
    }
}

// Weights, slopes and query gradients of the query rows [y, y + rows).
template <class T>
static Vector<T> backward_queries(const Attention& problem, const AttentionGradient& to, const Layout<T>& layout,
                                  const BackwardScratch<T>& scratch, const BandRows& band, const RowRange& keys,
                                  int64_t group, int64_t y, int64_t rows) {
  const Shape& shape = problem.shape;
  const int64_t head_size = shape.head_size, row = head_size * layout.query_pitch;
  const T* query = scratch.query + (y - band.query_first) * row + layout.margin;
  const T* gradient = scratch.gradient + (y - band.query_first) * row + layout.margin;
  const bool own = y >= band.own_first && y < band.own_last;
  Vector<T> scale[tile_rows], rate_gradient = {};
  for (auto& value : scale) value = splat(static_cast<T>(1 / __builtin_sqrt(static_cast<double>(head_size))));
  window_steps(layout, shape, y, rows, keys.first, scratch.steps);
  for (int64_t x = 0; x < shape.width_out * layout.interleave; x += lanes<T>) {
    dot_window(layout, head_size, scratch.steps, rows, query + x, scratch.key + x, Location<T>{}, scratch.weights);
    dot_window(layout, head_size, scratch.steps, rows, gradient + x, scratch.value + x, Location<T>{}, scratch.slopes);
    rate_gradient += differentiate(layout, scratch, static_cast<T>(problem.rate), rows, y, layout.margin + x, own);
    if (own)
      attend_tile(layout, head_size, scratch.steps, rows, scratch.slopes, scale, scratch.key + x,
                  Tile<T>{scratch.query_gradient + x, row, layout.query_pitch, false});
  }
  for (int64_t a = 0; own && a < rows; ++a)
    unpack_queries(problem, layout, scratch.columns, scratch.query_gradient + a * row, to.query, layout.stride, group,
                   y + a, to.accumulate);
  return rate_gradient;
}

// Add the padded rows of a band to the rows they mirror.
template <class T>
static void fold_rows(const Layout<T>& layout, const Shape& shape, const BandRows& band, T* gradient) {
  const int64_t row = shape.head_size * layout.key_pitch;
  for (int64_t padded = band.padded_first; padded < band.padded_last; ++padded) {
    const int64_t mirrored = reflect(padded - layout.radius, shape.height) + layout.radius;
    if (mirrored == padded) continue;
    const T* from = gradient + (padded - band.padded_first) * row;
    T* to = gradient + (mirrored - band.padded_first) * row;
    for (int64_t i = 0; i < row; ++i) to[i] += from[i];
  }
}

// Sums over a row of gradient times (x, y) location, lane by lane, `(channel, 2, lane)`; lines end in zeros.
template <class T>
static void add_position_gradient(const Attention& problem, int64_t row, const T* line, int64_t pitch, T* sums) {
  const Shape& shape = problem.shape;
  const T* x = static_cast<const T*>(problem.column_location);
  const T y = static_cast<const T*>(problem.row_location)[row];
  for (int64_t d = 0; d < shape.head_size; ++d, sums += 2 * lanes<T>) {
    Vector<T> across = load(sums), down = load(sums + lanes<T>);
    for (int64_t c = 0; c < shape.width; c += lanes<T>) {
      const Vector<T> cells = load(line + d * pitch + c);
      across += cells * load(x + c);
      down += cells * y;
    }
    store(sums, across);
    store(sums + lanes<T>, down);
  }
}

// Fold the padded columns of a band's gradient, times scale, and write it out.
template <class T>
static void unpack_keys(const Attention& problem, const Layout<T>& layout, const Columns<T>& columns,
                        const BandRows& band, const T* gradient, const Field& field, T scale, int64_t group,
                        T* position_sums, bool add) {
  const Shape& shape = problem.shape;
  const int64_t radius = layout.radius, interior = radius + shape.width;
  for (int64_t g = 0; g < layout.members(group); ++g)
    for (int64_t row = band.first; row < band.last; ++row) {
      const T* from = gradient + (row + radius - band.padded_first) * shape.head_size * layout.key_pitch;
      for (int64_t d = 0; d < shape.head_size; ++d) {
        const T* cells = from + d * layout.key_pitch + g;
        T* line = columns.line + d * columns.line_pitch;
        if (layout.direct())
          for (int64_t x = 0; x < shape.width; x += lanes<T>) store(line + x, scale * load(cells + radius + x));
        else if (layout.interleave == 1) {
          join_phases(cells, layout.phase_pitch, shape.width, layout.stride, radius, line);
          for (int64_t x = 0; x < shape.width; x += lanes<T>) store(line + x, scale * load(line + x));
        } else
          for (int64_t x = 0; x < shape.width; ++x) line[x] = scale * cells[columns.slot[x + radius]];
        for (int64_t x = shape.width; x < columns.line_pitch; ++x) line[x] = 0;
        for (int64_t c = 0; c < radius; ++c) line[columns.source[c]] += scale * cells[columns.slot[c]];
        for (int64_t c = interior; c < layout.padded_width; ++c)
          line[columns.source[c]] += scale * cells[columns.slot[c]];
      }
      if (position_sums) add_position_gradient(problem, row, columns.line, columns.line_pitch, position_sums);
      store_lines(columns.line, columns.line_pitch, field,
                  row_offset(field, shape, group * layout.interleave + g, row), field.inner, field.column,
                  shape.head_size, shape.width, add);
    }
}

template <class T>
static void backward_band(const Attention& problem, const AttentionGradient& to, const Layout<T>& layout,
                          const BackwardScratch<T>& scratch, int64_t group, int64_t band_index, T* partial) {
  const Shape& shape = problem.shape;
  const int64_t stride = layout.stride, head_size = shape.head_size, row = head_size * layout.key_pitch;
  const BandRows band(layout, shape, band_index);
  const RowRange keys(layout, shape, band.query_first, band.query_last);
  pack_keys(problem, layout, scratch.columns, problem.key, true, group, keys.first, keys.last, scratch.key);
  pack_keys(problem, layout, scratch.columns, problem.value, false, group, keys.first, keys.last, scratch.value);
  pack_queries(problem, layout, scratch.columns, problem.query, stride, logit_scale<T>(head_size), group,
               band.query_first, band.query_last, scratch.query);
  pack_queries(problem, layout, scratch.columns, problem.output, 1, T(1), group, band.query_first, band.query_last,
               scratch.gradient);
  Vector<T> rate_gradient = {};
  int64_t made = band.query_first;
  for (int64_t block = band.padded_first; block < band.padded_last; block += stride * tile_rows) {
    const int64_t needed = least(band.query_last, (block + stride * tile_rows - 1) / stride + 1);
    while (made < needed) {
      // A tile never straddles the border of the band's own queries.
      const int64_t border = made < band.own_first ? band.own_first
                                                   : made < band.own_last ? band.own_last : band.query_last;
      const int64_t rows = least(tile_rows, border - made);
      rate_gradient += backward_queries(problem, to, layout, scratch, band, keys, group, made, rows);
      made += rows;
    }
    for (int64_t padded = block; padded < least(block + stride, band.padded_last); ++padded) {
      const int64_t rows = least(tile_rows, ceil_divide(band.padded_last - padded, stride));
      const int64_t steps = gather_steps(layout, scratch, head_size, band, padded, rows, scratch.steps);
      const int64_t offset = (padded - band.padded_first) * row;
      gather_tile(layout, scratch.steps, steps, rows, head_size, scratch.ring_slopes, scratch.query,
                  scratch.key_gradient + offset);
      gather_tile(layout, scratch.steps, steps, rows, head_size, scratch.ring_weights, scratch.gradient,
                  scratch.value_gradient + offset);
    }
  }
  fold_rows(layout, shape, band, scratch.key_gradient);
  fold_rows(layout, shape, band, scratch.value_gradient);
  std::memset(scratch.position_sums, 0, 2 * head_size * lanes<T> * sizeof(T));
  // Queries carry log2(e) / sqrt(D); ln(2) leaves 1 / sqrt(D).
  unpack_keys(problem, layout, scratch.columns, band, scratch.key_gradient, to.key, T(0.69314718055994531), group,
              problem.position ? scratch.position_sums : nullptr, to.accumulate);
  unpack_keys(problem, layout, scratch.columns, band, scratch.value_gradient, to.value, T(1), group,
              static_cast<T*>(nullptr), to.accumulate);
  for (int64_t i = 0; i < 2 * head_size; ++i) partial[i] -= sum_lanes(scratch.position_sums + i * lanes<T>);
  alignas(vector_bytes) T parts[lanes<T>];
  store(parts, rate_gradient);
  partial[2 * head_size] += sum_lanes(parts);
}

// The scratch of one thread, zeroed: margins stay zero, and what registers read past a line is finite.
template <class T>
static BackwardScratch<T> make_scratch(const Layout<T>& layout, const Shape& shape) {
  Arena<T> arena;
  BackwardScratch<T>(layout, shape, arena);
  const size_t bytes = static_cast<size_t>(arena.used) * sizeof(T);
  arena = {static_cast<T*>(workspace(bytes)), 0};
  std::memset(arena.memory, 0, bytes);
  return BackwardScratch<T>(layout, shape, arena);
}

template <class T>
static int64_t attention_tasks(const Attention& problem) {
  return Layout<T>(problem).tasks();
}

template <class T>
static void attention_backward(const Attention& problem, const AttentionGradient& to, int64_t first, int64_t last) {
  const Layout<T> layout(problem);
  const auto scratch = make_scratch(layout, problem.shape);
  for (int64_t task = first; task < last; ++task) {
    const int64_t group = task / layout.bands;
    // Lanes of maps that the last group lacks would keep the maps of the group before.
    if (layout.members(group) < layout.interleave) make_scratch(layout, problem.shape);
    backward_band(problem, to, layout, scratch, group, task % layout.bands,
                  static_cast<T*>(to.partial) + task * (2 * problem.shape.head_size + 1));
  }
}

}  // namespace acmix::ACMIX_ISA
