// Local attention of tiles: tile_rows query rows by one register of pixels.
#pragma once

#include <type_traits>
#include <utility>

#include "layout/maps.h"
#include "products/product.h"

namespace acmix::ACMIX_ISA {

// What a key's location adds to its logits: slopes are `(tile row, 2, lane)`, along columns and along rows.
template <class T>
struct Location {
  const T *slopes, *columns, *rows;
};

// Dot products of `rows` queries with `cells` neighbouring window cells of key row `row`, over all channels, or pairs.
template <class T, class Term, int rows, int cells>
static void dot_tile(const T* query, int64_t query_row, int64_t query_pitch, const T* key, int64_t key_step,
                     int64_t key_pitch, int64_t channels, const Location<T>& location, int64_t row, T* to,
                     int64_t to_row, int64_t to_cell) {
  Vector<T> sum[rows][cells] = {};
  if (location.slopes) {
#pragma GCC unroll 8
    for (int a = 0; a < rows; ++a) {
      const Vector<T> across = load(location.slopes + 2 * a * lanes<T>);
      const Vector<T> down = load(location.slopes + (2 * a + 1) * lanes<T>) * location.rows[row];
#pragma GCC unroll 8
      for (int x = 0; x < cells; ++x) sum[a][x] = across * load(location.columns + x * key_step) + down;
    }
  }
#pragma GCC unroll 2
  for (int64_t d = 0; d < channels; ++d) {
    Vector<T> q[rows];
#pragma GCC unroll 8
    for (int a = 0; a < rows; ++a) q[a] = load_once(query + a * query_row + d * query_pitch);
#pragma GCC unroll 8
    for (int x = 0; x < cells; ++x) {
      const Vector<T> k = load_once(key + d * key_pitch + x * key_step);
#pragma GCC unroll 8
      for (int a = 0; a < rows; ++a) sum[a][x] = Term::add(sum[a][x], q[a], k);
    }
  }
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 8
    for (int x = 0; x < cells; ++x) store(to + a * to_row + x * to_cell, sum[a][x]);
}

template <class T>
using DotTile = void (*)(const T*, int64_t, int64_t, const T*, int64_t, int64_t, int64_t, const Location<T>&, int64_t,
                         T*, int64_t, int64_t);

template <class T, class Term, int rows, int... cells>
static inline DotTile<T> choose_cells(int count, std::integer_sequence<int, cells...>) {
  static constexpr DotTile<T> table[] = {dot_tile<T, Term, rows, cells + 1>...};
  return table[count - 1];
}

template <class T, class Term>
static inline DotTile<T> choose_dot_tile(int64_t rows, int64_t cells) {
  constexpr auto sizes = std::make_integer_sequence<int, tile_cells>{};
  const int count = static_cast<int>(cells);
  return rows == 1 ? choose_cells<T, Term, 1>(count, sizes)
                   : rows == 2 ? choose_cells<T, Term, 2>(count, sizes) : choose_cells<T, Term, 3>(count, sizes);
}

// One row of keys that a tile of queries sees (or of queries that a tile of keys sees): which rows of the tile, first
// to last, where the row's weights and values begin, and which row of the map it is.
struct Step {
  int64_t first, last, weight, value, row;
};

// Products of a tile of `rows` queries with every cell of their windows, `(tile row, window cell, lane)`.
template <class T, class Term = Numbers<T>>
static void dot_window(const MapLayout<T>& layout, int64_t channels, const Step* steps, int64_t rows,
                       const Rows<const T>& query, const T* key, const Location<T>& location, T* to) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride, to_row = window * window * count;
  for (int64_t t = 0; t < stride * (rows - 1) + window; ++t) {
    const Step step = steps[t];
    if (step.last < step.first) continue;
    T* out = to + step.weight + step.first * (to_row - stride * window * count);
    for (int64_t phase = 0; phase < least(stride, window); ++phase) {
      const int64_t cells = (window - phase + stride - 1) / stride;
      for (int64_t x = 0; x < cells; x += tile_cells) {
        const int64_t offset = layout.cell_offset(phase) + x * layout.interleave;
        Location<T> there = location;
        if (there.slopes) there = {location.slopes + 2 * step.first * count, location.columns + offset, location.rows};
        choose_dot_tile<T, Term>(step.last - step.first + 1, least(tile_cells, cells - x))(
            query.data + step.first * query.row, query.row, query.pitch, key + step.value + offset,
            layout.interleave, layout.pitch, channels, there, step.row, out + (phase + x * stride) * count,
            to_row - stride * window * count, stride * count);
      }
    }
  }
}

// Neighbouring cells of a row of a window: their weights, `(tile row, cell)`, and values, `(channel, cell)`.
template <class T>
struct Cells {
  const T* weight;
  int64_t weight_row, weight_cell;
  const T* value;
  int64_t value_cell, pitch, count;
};

// sum[a][j] += weight(a, x) * value(j, x) over cells x, for the rows first..last of a tile; products are those of Term.
template <class T, class Term, int first, int last, int channels>
__attribute__((always_inline)) static inline void add_cells(Vector<T> (&sum)[tile_rows][channels],
                                                            const Cells<T>& cells, const Step& step) {
  const int64_t weight_row = cells.weight_row, pitch = cells.pitch;
  const T *weight = cells.weight + step.weight, *value = cells.value + step.value;
#pragma GCC unroll 2
  for (int64_t x = 0; x < cells.count; ++x, weight += cells.weight_cell, value += cells.value_cell) {
    Vector<T> w[tile_rows];
#pragma GCC unroll 4
    for (int a = first; a <= last; ++a) w[a] = load_once(weight + a * weight_row);
#pragma GCC unroll 8
    for (int j = 0; j < channels; ++j) {
      const Vector<T> v = load_once(value + j * pitch);
#pragma GCC unroll 4
      for (int a = first; a <= last; ++a) sum[a][j] = Term::add(sum[a][j], w[a], v);
    }
  }
}

// The same for every step. Values that are not numbers are pairs of cells, each at its first one; an odd cell is the first
// of its pair.
template <class T, int channels, class Term = Numbers<T>>
__attribute__((always_inline)) static inline void add_steps(Vector<T> (&sum)[tile_rows][channels], const Step* steps,
                                                            int64_t step_count, const Cells<T>& cells) {
  constexpr bool paired = !std::is_same_v<Term, Numbers<T>>;
  const int64_t single = cells.count - 1;
  const Cells<T> together = {cells.weight, cells.weight_row, 2 * cells.weight_cell, cells.value,
                             2 * cells.value_cell, cells.pitch, cells.count / 2};
  const Cells<T> alone = {cells.weight + single * cells.weight_cell, cells.weight_row, 0,
                          cells.value + single * cells.value_cell, 0, cells.pitch, cells.count % 2};
#define ACMIX_CASE(a, b)                                                               \
  case 3 * a + b:                                                                      \
    add_cells<T, Term, a, b, channels>(sum, paired ? together : cells, *step);         \
    if constexpr (paired) add_cells<T, FirstOfPairs<T>, a, b, channels>(sum, alone, *step); \
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

// 1 / sqrt(D), the scale of the logits.
template <class T>
static inline T inverse_root(int64_t head_size) {
  return static_cast<T>(1 / __builtin_sqrt(static_cast<double>(head_size)));
}

// The same in base 2, and how far below the largest logit the others are told apart.
template <class T>
struct LogitScale {
  T scale, largest;

  explicit LogitScale(int64_t head_size) {
    const double root = __builtin_sqrt(static_cast<double>(head_size));
    scale = static_cast<T>(1.4426950408889634 / root);
    largest = static_cast<T>(0.6931471805599453 * largest_drop<T> * root);
  }
};

template <class T>
static inline Vector<T> largest_logit(const T* logits, int64_t cells) {
  constexpr int64_t count = lanes<T>;
  Vector<T> peak = load(logits), other = peak;
  for (int64_t j = 1; j < cells; j += 2) {
    peak = larger<T>(peak, load(logits + j * count));
    other = larger<T>(other, load(logits + least(j + 1, cells - 1) * count));
  }
  return larger<T>(peak, other);
}

// In place: exp2 of the logits less their maximum, times the scale; returns 1 / sum. The maximum is taken off before
// anything is rounded: a product less a rounded product may be positive, and of large logits huge.
template <class T>
static inline Vector<T> exponentiate(T* logits, int64_t cells, const LogitScale<T>& scale) {
  const Vector<T> peak = largest_logit(logits, cells), largest = opaque(splat(scale.largest));
  Vector<T> sum = {};
  for (T* cell = logits; cell < logits + cells * lanes<T>; cell += lanes<T>) {
    const Vector<T> e = exp2_negated(smaller<T>(peak - load(cell), largest), scale.scale);
    sum += e;
    store(cell, e);
  }
  return T(1) / sum;
}

// The same, of cells that are added in pairs a pair in the place of the first.
template <class T>
static inline Vector<T> exponentiate_pairs(T* logits, int64_t window, int64_t stride, const LogitScale<T>& scale) {
  constexpr int64_t count = lanes<T>;
  const Vector<T> peak = largest_logit(logits, window * window), largest = opaque(splat(scale.largest));
  Vector<T> sum = {};
  auto weigh = [&](const T* cell) {
    const Vector<T> e = exp2_negated_roughly(smaller<T>(peak - load(cell), largest), scale.scale);
    sum += e;
    return e;
  };
  for (T* row = logits; row < logits + window * window * count; row += window * count)
    for (int64_t phase = 0; phase < least(stride, window); ++phase) {
      int64_t x = phase;
      for (; x + stride < window; x += 2 * stride) {
        const Vector<T> first = weigh(row + x * count);
        store(row + x * count, join_pairs(first, weigh(row + (x + stride) * count)));
      }
      if (x < window) store(row + x * count, weigh(row + x * count));
    }
  return T(1) / sum;
}

// Steps of a tile of `rows` query rows from y on, over keys packed from row key_first on.
template <class T>
static void window_steps(const MapLayout<T>& layout, const Shape& shape, int64_t y, int64_t rows, int64_t key_first,
                         Step* steps) {
  const int64_t window = layout.window, stride = layout.stride;
  for (int64_t t = 0; t < stride * (rows - 1) + window; ++t) {
    const int64_t row = reflect(stride * y + t - layout.radius, shape.height);
    steps[t] = {t < window ? 0 : ceil_divide(t - window + 1, stride), least(rows - 1, t / stride),
                t * window * lanes<T>, (row - key_first) * layout.row, row};
  }
}

template <class T, class Term, int channels>
static void attend_channels(const MapLayout<T>& layout, const Step* steps, int64_t rows, const T* weight,
                            const Vector<T>* factor, const T* value, int64_t first, const Rows<T>& to, bool add) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride;
  Vector<T> sum[tile_rows][channels] = {};
  for (int64_t phase = 0; phase < least(stride, window); ++phase)
    add_steps<T, channels, Term>(sum, steps, stride * (rows - 1) + window,
                                 {weight + phase * count, (window - stride) * window * count, stride * count,
                                  value + first * layout.pitch + layout.cell_offset(phase), layout.interleave,
                                  layout.pitch, (window - phase + stride - 1) / stride});
#pragma GCC unroll 4
  for (int a = 0; a < tile_rows; ++a)
    if (a < rows)
#pragma GCC unroll 8
      for (int j = 0; j < channels; ++j) {
        T* place = to.data + a * to.row + (first + j) * to.pitch;
        // Opaque: fused into the addition in some rows of a tile alone, results would differ by where tiles begin.
        const Vector<T> product = opaque(factor[a] * sum[a][j]);
        store(place, add ? load(place) + product : product);
      }
}

// Weighted sums of every channel over the windows of a tile, times factor[row], put into or added to `to`.
template <class T, class Term = Numbers<T>>
static void attend_tile(const MapLayout<T>& layout, int64_t head_size, const Step* steps, int64_t rows, const T* weight,
                        const Vector<T>* factor, const T* value, const Rows<T>& to, bool add) {
  int64_t d = 0;
  for (; d + tile_channels <= head_size; d += tile_channels)
    attend_channels<T, Term, tile_channels>(layout, steps, rows, weight, factor, value, d, to, add);
  for (; d < head_size; ++d)
    attend_channels<T, Term, 1>(layout, steps, rows, weight, factor, value, d, to, add);
}

// - W_p . q of a tile of queries, whose channels may be in pairs, `(tile row, 2, lane)`: how the logits fall with a key's
// location.
template <class T, class Term = Numbers<T>>
static void locate(const Mix& problem, int64_t rows, const Rows<const T>& query, T* slopes) {
  constexpr bool paired = !std::is_same_v<Term, Numbers<T>>;
  const T *weight = static_cast<const T*>(problem.attention.position), *end = weight + 2 * problem.shape.head_size;
  for (int64_t a = 0; a < rows; ++a) {
    Vector<T> across = {}, down = {};
    const T* from = query.data + a * query.row;
    for (const T* w = weight; w < end; from += query.pitch) {
      const Vector<T> q = load(from);
      auto add = [&]<class Part>(Part) {
        across = Part::add(across, splat(-w[0]), q);
        down = Part::add(down, splat(-w[1]), q);
        w += 2;
      };
      if constexpr (paired) {
        add(FirstOfPairs<T>());
        if (w < end) add(SecondOfPairs<T>());
      } else {
        add(Numbers<T>());
      }
    }
    store(slopes + 2 * a * lanes<T>, across);
    store(slopes + (2 * a + 1) * lanes<T>, down);
  }
}

template <class T>
static inline Step* take_steps(const MapLayout<T>& layout, Arena<T>& arena) {
  return reinterpret_cast<Step*>(
      arena.take((layout.window + tile_rows * (layout.stride + 1)) * static_cast<int64_t>(sizeof(Step) / sizeof(T))));
}

}  // namespace acmix::ACMIX_ISA
