// Local attention, forward: tiles of tile_rows query rows by one register of pixels.
#pragma once

#include <utility>

#include "window.h"

namespace acmix::ACMIX_ISA {

// Dot products of `rows` queries with `cells` neighbouring window cells of one key row, over all channels.
template <class T, int rows, int cells>
static void dot_tile(const T* query, int64_t query_row, int64_t query_pitch, const T* key, int64_t key_step,
                     int64_t key_pitch, int64_t channels, T* to, int64_t to_row, int64_t to_cell) {
  Vector<T> sum[rows][cells] = {};
  for (int64_t d = 0; d < channels; ++d) {
    Vector<T> q[rows];
#pragma GCC unroll 8
    for (int a = 0; a < rows; ++a) q[a] = load(query + a * query_row + d * query_pitch);
#pragma GCC unroll 8
    for (int x = 0; x < cells; ++x) {
      const Vector<T> k = load(key + d * key_pitch + x * key_step);
#pragma GCC unroll 8
      for (int a = 0; a < rows; ++a) sum[a][x] += q[a] * k;
    }
  }
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 8
    for (int x = 0; x < cells; ++x) store(to + a * to_row + x * to_cell, sum[a][x]);
}

template <class T>
using DotTile = void (*)(const T*, int64_t, int64_t, const T*, int64_t, int64_t, int64_t, T*, int64_t, int64_t);

template <class T, int rows, int... cells>
static inline DotTile<T> choose_cells(int count, std::integer_sequence<int, cells...>) {
  static constexpr DotTile<T> table[] = {dot_tile<T, rows, cells + 1>...};
  return table[count - 1];
}

template <class T>
static inline DotTile<T> choose_dot_tile(int64_t rows, int64_t cells) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_cells>{};
  const int count = static_cast<int>(cells);
  return rows == 1 ? choose_cells<T, 1>(count, sizes)
                   : rows == 2 ? choose_cells<T, 2>(count, sizes) : choose_cells<T, 3>(count, sizes);
}

// One row of keys that a tile of queries sees (or of queries that a tile of keys sees): which rows of the tile, first
// to last, and where the row's weights and values begin.
struct Step {
  int64_t first, last, weight, value;
};

// Products of a tile of queries with every cell of their windows, `(tile row, window cell, lane)`.
template <class T>
static void dot_window(const Layout<T>& layout, int64_t channels, const Step* steps, int64_t rows, const T* query,
                       const T* key, T* to) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride, to_row = window * window * count;
  const int64_t query_row = channels * layout.query_pitch;
  for (int64_t t = 0; t < stride * (rows - 1) + window; ++t) {
    const Step step = steps[t];
    if (step.last < step.first) continue;
    T* out = to + step.weight + step.first * (to_row - stride * window * count);
    for (int64_t phase = 0; phase < least(stride, window); ++phase) {
      const int64_t cells = (window - phase + stride - 1) / stride;
      for (int64_t x = 0; x < cells; x += tile_cells)
        choose_dot_tile<T>(step.last - step.first + 1, least(tile_cells, cells - x))(
            query + step.first * query_row, query_row, layout.query_pitch,
            key + step.value + phase * layout.phase_pitch + x * layout.interleave, layout.interleave, layout.key_pitch,
            channels, out + (phase + x * stride) * count, to_row - stride * window * count, stride * count);
    }
  }
}

// sum[a][j] += weight(a, x) * value(j, x) over `count` cells x, for the rows first..last of a tile.
template <class T, int first, int last, int channels>
__attribute__((always_inline)) static inline void add_cells(Vector<T> (&sum)[tile_rows][channels], const T* weight,
                                                            int64_t weight_row, int64_t weight_cell, const T* value,
                                                            int64_t value_cell, int64_t pitch, int64_t count) {
  for (int64_t x = 0; x < count; ++x, weight += weight_cell, value += value_cell) {
    Vector<T> w[tile_rows];
#pragma GCC unroll 4
    for (int a = first; a <= last; ++a) w[a] = load(weight + a * weight_row);
#pragma GCC unroll 8
    for (int j = 0; j < channels; ++j) {
      const Vector<T> v = load(value + j * pitch);
#pragma GCC unroll 4
      for (int a = first; a <= last; ++a) sum[a][j] += w[a] * v;
    }
  }
}

// The same for every step.
template <class T, int channels>
__attribute__((always_inline)) static inline void add_steps(Vector<T> (&sum)[tile_rows][channels], const Step* steps,
                                                            int64_t step_count, const T* weight, int64_t weight_row,
                                                            int64_t weight_cell, const T* value, int64_t value_cell,
                                                            int64_t pitch, int64_t count) {
#define ACMIX_CASE(a, b)                                                                                           \
  case 3 * a + b:                                                                                                  \
    add_cells<T, a, b, channels>(sum, weight + step->weight, weight_row, weight_cell, value + step->value,         \
                                 value_cell, pitch, count);                                                        \
    break
  for (const Step* step = steps; step < steps + step_count; ++step) {
    if (step->last < step->first) continue;
    switch (3 * step->first + step->last) {
      ACMIX_CASE(0, 0);
      ACMIX_CASE(0, 1);
      ACMIX_CASE(0, 2);
      ACMIX_CASE(1, 1);
      ACMIX_CASE(1, 2);
      ACMIX_CASE(2, 2);
    }
  }
#undef ACMIX_CASE
}

// In place: exp2 of the logits less their maximum; returns 1 / sum.
template <class T>
static inline Vector<T> exponentiate(T* logits, int64_t cells) {
  constexpr int64_t count = lanes<T>;
  Vector<T> peak = load(logits), other = peak;
  for (int64_t j = 1; j < cells; j += 2) {
    peak = larger<T>(peak, load(logits + j * count));
    other = larger<T>(other, load(logits + least(j + 1, cells - 1) * count));
  }
  peak = larger<T>(peak, other);
  Vector<T> sum = {};
  for (int64_t j = 0; j < cells; ++j) {
    const Vector<T> e = exp2_nonpositive(load(logits + j * count) - peak);
    sum += e;
    store(logits + j * count, e);
  }
  return T(1) / sum;
}

// Scale of the logits in base 2.
template <class T>
static inline T logit_scale(int64_t head_size) {
  return static_cast<T>(1.4426950408889634 / __builtin_sqrt(static_cast<double>(head_size)));
}

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

// Steps of a tile of `rows` query rows from y on, over keys packed from row key_first on.
template <class T>
static void window_steps(const Layout<T>& layout, const Shape& shape, int64_t y, int64_t rows, int64_t key_first,
                         Step* steps) {
  const int64_t window = layout.window, stride = layout.stride;
  for (int64_t t = 0; t < stride * (rows - 1) + window; ++t) {
    const int64_t row = reflect(stride * y + t - layout.radius, shape.height) - key_first;
    steps[t] = {t < window ? 0 : ceil_divide(t - window + 1, stride), least(rows - 1, t / stride),
                t * window * lanes<T>, row * shape.head_size * layout.key_pitch};
  }
}

template <class T, int channels>
static inline void attend_channels(const Layout<T>& layout, const Step* steps, int64_t rows, const T* weight,
                                   const Vector<T>* factor, int64_t head_size, const T* value, T* to) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride;
  Vector<T> sum[tile_rows][channels] = {};
  for (int64_t phase = 0; phase < least(stride, window); ++phase)
    add_steps<T, channels>(sum, steps, stride * (rows - 1) + window, weight + phase * count,
                           (window - stride) * window * count, stride * count, value + phase * layout.phase_pitch,
                           layout.interleave, layout.key_pitch, (window - phase + stride - 1) / stride);
  for (int a = 0; a < tile_rows; ++a)
    if (a < rows)
      for (int j = 0; j < channels; ++j)
        store(to + (a * head_size + j) * layout.query_pitch, factor[a] * sum[a][j]);
}

// Weighted sums of every channel over the windows of a tile, times factor[row], to `(tile row, channel, query_pitch)`.
template <class T>
static void attend_tile(const Layout<T>& layout, int64_t head_size, const Step* steps, int64_t rows, const T* weight,
                        const Vector<T>* factor, const T* value, T* to) {
  int64_t d = 0;
  for (; d + tile_channels <= head_size; d += tile_channels)
    attend_channels<T, tile_channels>(layout, steps, rows, weight, factor, head_size, value + d * layout.key_pitch,
                                      to + d * layout.query_pitch);
  for (; d < head_size; ++d)
    attend_channels<T, 1>(layout, steps, rows, weight, factor, head_size, value + d * layout.key_pitch,
                          to + d * layout.query_pitch);
}

template <class T>
static inline Step* take_steps(const Layout<T>& layout, Arena<T>& arena) {
  return reinterpret_cast<Step*>(
      arena.take((layout.window + tile_rows * (layout.stride + 1)) * static_cast<int64_t>(sizeof(Step) / sizeof(T))));
}

template <class T>
struct ForwardScratch {
  Columns<T> columns;
  Step* steps;
  T *logits, *key, *value, *query;

  ForwardScratch(const Layout<T>& layout, const Shape& shape, Arena<T>& arena) : columns(layout, shape, arena) {
    const int64_t longest = layout.band_rows + layout.window;
    const int64_t key_rows = least(shape.height, longest + 2 * layout.window);
    steps = take_steps(layout, arena);
    logits = arena.take(tile_rows * layout.window * layout.window * lanes<T>);
    key = arena.take(key_rows * shape.head_size * layout.key_pitch);
    value = arena.take(key_rows * shape.head_size * layout.key_pitch);
    query = arena.take(least(shape.height_out, longest) * shape.head_size * layout.query_pitch);
  }
};

template <class T>
static void forward_band(const Attention& problem, const Layout<T>& layout, const ForwardScratch<T>& scratch,
                         int64_t group, int64_t band) {
  const Shape& shape = problem.shape;
  const int64_t stride = layout.stride, head_size = shape.head_size, cells = layout.window * layout.window;
  const int64_t first = ceil_divide(band * layout.band_rows, stride);
  const int64_t last = ceil_divide(layout.last_row(shape, band), stride);
  const RowRange keys(layout, shape, first, last);
  pack_keys(problem, layout, scratch.columns, problem.key, true, group, keys.first, keys.last, scratch.key);
  pack_keys(problem, layout, scratch.columns, problem.value, false, group, keys.first, keys.last, scratch.value);
  pack_queries(problem, layout, scratch.columns, problem.query, stride, logit_scale<T>(head_size), group, first, last,
               scratch.query);
  for (int64_t y = first; y < last; y += tile_rows) {
    const int64_t rows = least(tile_rows, last - y);
    T* query = scratch.query + (y - first) * head_size * layout.query_pitch;
    window_steps(layout, shape, y, rows, keys.first, scratch.steps);
    for (int64_t x = 0; x < shape.width_out * layout.interleave; x += lanes<T>) {
      dot_window(layout, head_size, scratch.steps, rows, query + x, scratch.key + x, scratch.logits);
      Vector<T> factor[tile_rows];
      for (int64_t a = 0; a < rows; ++a)
        factor[a] = static_cast<T>(problem.rate) * exponentiate(scratch.logits + a * cells * lanes<T>, cells);
      attend_tile(layout, head_size, scratch.steps, rows, scratch.logits, factor, scratch.value + x, query + x);
    }
    for (int64_t a = 0; a < rows; ++a)
      unpack_queries(problem, layout, scratch.columns, query + a * head_size * layout.query_pitch, problem.output, 1,
                     group, y + a, false);
  }
}

// The scratch of one thread.
template <class T, class Scratch>
static Scratch make_scratch(const Layout<T>& layout, const Shape& shape, bool zeroed) {
  Arena<T> arena;
  Scratch(layout, shape, arena);
  const size_t bytes = static_cast<size_t>(arena.used) * sizeof(T);
  arena = {static_cast<T*>(workspace(bytes)), 0};
  if (zeroed) std::memset(arena.memory, 0, bytes);
  return Scratch(layout, shape, arena);
}

template <class T>
static int64_t attention_tasks(const Attention& problem, bool backward) {
  return Layout<T>(problem, backward).tasks();
}

template <class T>
static void attention_forward(const Attention& problem, int64_t first, int64_t last) {
  const Layout<T> layout(problem, false);
  const auto scratch = make_scratch<T, ForwardScratch<T>>(layout, problem.shape, false);
  for (int64_t task = first; task < last; ++task)
    forward_band(problem, layout, scratch, task / layout.bands, task % layout.bands);
}

}  // namespace acmix::ACMIX_ISA
