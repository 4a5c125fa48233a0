// Local attention of tiles: tile_rows query rows by one register of pixels.
#pragma once

#include <type_traits>

#include "products/product.h"
#include "stage_two/neighbours.h"

namespace acmix::ACMIX_ISA {

// What a key's location adds to its logits: slopes are `(tile row, 2, lane)`, along columns and along rows.
template <class T>
struct Location {
  const T *slopes, *columns, *rows;
};

// One row of keys that a tile of queries sees (or of queries that a tile of keys sees): which rows of the tile, first
// to last, where the row's weights and values begin, and which row of the map it is.
struct Step {
  int64_t first, last, weight, value, row;
};

// Products of a tile of queries with some neighbouring cells of their windows: of `channels` channels, or pairs of
// them. Those of window cell x go to `to` + x * to_cell, `to_row` from row to row; peaks, if any, become the largest of
// each row.
template <class T>
struct Dots {
  Rows<const T> query;
  const T* key;
  int64_t key_step, key_pitch, channels;
  Location<T> location;
  T *to, *peaks;
  int64_t to_row, to_cell;
};

// Those of `rows` rows and `cells` cells of one row of keys, which are cut out where their spacing, key_step, is known.
template <class T, class Term, int rows, int cells, int spacing>
__attribute__((always_inline)) static inline void dot_tile(const Dots<T>& dots, const Step& step) {
  Vector<T> sum[rows][cells] = {};
  const int64_t key_step = dots.key_step, to_row = dots.to_row, to_cell = dots.to_cell, first = step.first;
  const Location<T>& location = dots.location;
  if (location.slopes) {
    const T* slopes = location.slopes + 2 * first * lanes<T>;
#pragma GCC unroll 8
    for (int a = 0; a < rows; ++a) {
      const Vector<T> across = load(slopes + 2 * a * lanes<T>);
      // Opaque: the compiler would rather make this product again for every sum.
      const Vector<T> down = opaque(load(slopes + (2 * a + 1) * lanes<T>) * location.rows[step.row]);
#pragma GCC unroll 8
      for (int x = 0; x < cells; ++x) sum[a][x] = across * load(location.columns + x * key_step) + down;
    }
  }
  const T *query = dots.query.data + first * dots.query.row, *key = dots.key + step.value;
#pragma GCC unroll 2
  for (int64_t d = 0; d < dots.channels; ++d, query += dots.query.pitch, key += dots.key_pitch) {
    Vector<T> q[rows];
#pragma GCC unroll 8
    for (int a = 0; a < rows; ++a) q[a] = load_once(query + a * dots.query.row);
    auto add = [&](int x, Vector<T> k) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int a = 0; a < rows; ++a) sum[a][x] = Term::add(sum[a][x], q[a], k);
    };
    if constexpr (spacing) {
      const Neighbours<T> keys(key + cut_radius * spacing);
      repeat<cells>([&]<int x>()
                        __attribute__((always_inline)) { add(x, keys.template cell<(x - cut_radius) * spacing>()); });
    } else {
#pragma GCC unroll 8
      for (int x = 0; x < cells; ++x) add(x, load_once(key + x * key_step));
    }
  }
  T* to = dots.to + step.weight + first * to_row;
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a)
#pragma GCC unroll 8
    for (int x = 0; x < cells; ++x) store(to + a * to_row + x * to_cell, sum[a][x]);
  if (!dots.peaks) return;
#pragma GCC unroll 8
  for (int a = 0; a < rows; ++a) {
    T* place = dots.peaks + (first + a) * lanes<T>;
    Vector<T> peak = sum[a][0];
#pragma GCC unroll 8
    for (int x = 1; x < cells; ++x) peak = larger<T>(peak, sum[a][x]);
    store(place, larger<T>(load(place), peak));
  }
}

// The same for every step.
template <class T, class Term, int cells, int spacing>
static void dot_steps(const Dots<T>& dots, const Step* steps, int64_t step_count) {
  for (const Step* step = steps; step < steps + step_count; ++step) {
    switch (step->last - step->first) {
      case 0:
        dot_tile<T, Term, 1, cells, spacing>(dots, *step);
        break;
      case 1:
        dot_tile<T, Term, 2, cells, spacing>(dots, *step);
        break;
      case 2:
        dot_tile<T, Term, 3, cells, spacing>(dots, *step);
        break;
    }
  }
}

// Of at most tile_cells cells.
template <class T, class Term, int most_cells = tile_cells>
static inline void dot_cells(int64_t cells, const Dots<T>& dots, const Step* steps, int64_t step_count) {
  if constexpr (most_cells > 1)
    if (cells < most_cells) return dot_cells<T, Term, most_cells - 1>(cells, dots, steps, step_count);
  dot_steps<T, Term, most_cells, 0>(dots, steps, step_count);
}

// Products of a tile of `rows` queries with every cell of their windows, `(tile row, window cell, lane)`, and the
// largest of each row, if wanted.
template <class T, class Term = Numbers<T>>
static void dot_window(const MapLayout<T>& layout, int64_t channels, const Step* steps, int64_t rows,
                       const Rows<const T>& query, const T* key, const Location<T>& location, T* to,
                       T* peaks = nullptr) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride;
  for (int64_t a = 0; peaks && a < rows; ++a) store(peaks + a * count, splat(static_cast<T>(-__builtin_inf())));
  for (int64_t phase = 0; phase < least(stride, window); ++phase) {
    const int64_t cells = layout.window_cells(phase);
    for (int64_t x = 0; x < cells; x += tile_cells) {
      const int64_t offset = layout.cell_offset(phase) + x * layout.interleave;
      const Dots<T> dots = {query,
                            key + offset,
                            layout.interleave,
                            layout.pitch,
                            channels,
                            {location.slopes, location.slopes ? location.columns + offset : nullptr, location.rows},
                            to + (phase + x * stride) * count,
                            peaks,
                            (window - stride) * window * count,
                            stride * count};
      const int64_t step_count = stride * (rows - 1) + window;
      with_spacing(layout, [&]<int spacing>() {
        static_assert(!cuts_cells<T> || cut_window <= tile_cells);
        if constexpr (spacing)
          dot_steps<T, Term, cut_window, spacing>(dots, steps, step_count);
        else
          dot_cells<T, Term>(least(tile_cells, cells - x), dots, steps, step_count);
      });
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

// The same for a row of a window whose values, value_cell apart, are cut out.
template <class T, class Term, int spacing, int first, int last, int channels>
__attribute__((always_inline)) static inline void add_row(Vector<T> (&sum)[tile_rows][channels], const Cells<T>& cells,
                                                          const Step& step) {
  constexpr int together = std::is_same_v<Term, Numbers<T>> ? 1 : 2;
  const int64_t weight_row = cells.weight_row;
  const T *weight = cells.weight + step.weight, *value = cells.value + step.value + cut_radius * spacing;
  Neighbours<T> values[channels];
#pragma GCC unroll 8
  for (int j = 0; j < channels; ++j) values[j] = Neighbours<T>(value + j * cells.pitch);
  repeat<ceil_divide(cut_window, together)>([&]<int x>() __attribute__((always_inline)) {
    constexpr int cell = x * together;
    using Product = std::conditional_t<together == 2 && cell + 1 == cut_window, FirstOfPairs<T>, Term>;
    Vector<T> w[tile_rows];
#pragma GCC unroll 4
    for (int a = first; a <= last; ++a) w[a] = load_once(weight + a * weight_row + cell * cells.weight_cell);
#pragma GCC unroll 8
    for (int j = 0; j < channels; ++j) {
      const Vector<T> v = values[j].template cell<(cell - cut_radius) * spacing>();
#pragma GCC unroll 4
      for (int a = first; a <= last; ++a) sum[a][j] = Product::add(sum[a][j], w[a], v);
    }
  });
}

// The same for every step. Values that are not numbers are pairs of cells, each at its first one; an odd cell is the
// first of its pair.
template <class T, class Term, int spacing, int channels>
__attribute__((always_inline)) static inline void add_steps(Vector<T> (&sum)[tile_rows][channels], const Step* steps,
                                                            int64_t step_count, const Cells<T>& cells) {
  constexpr bool paired = !std::is_same_v<Term, Numbers<T>>;
  const int64_t single = cells.count - 1;
  const Cells<T> together = {cells.weight,         cells.weight_row, 2 * cells.weight_cell, cells.value,
                             2 * cells.value_cell, cells.pitch,      cells.count / 2};
  const Cells<T> alone = {cells.weight + single * cells.weight_cell,
                          cells.weight_row,
                          0,
                          cells.value + single * cells.value_cell,
                          0,
                          cells.pitch,
                          cells.count % 2};
#define ACMIX_CASE(a, b)                                                                      \
  case 3 * a + b:                                                                             \
    if constexpr (spacing) {                                                                  \
      add_row<T, Term, spacing, a, b, channels>(sum, cells, *step);                           \
    } else {                                                                                  \
      add_cells<T, Term, a, b, channels>(sum, paired ? together : cells, *step);              \
      if constexpr (paired) add_cells<T, FirstOfPairs<T>, a, b, channels>(sum, alone, *step); \
    }                                                                                         \
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

// exponentiate of `cells` logits, `step` from one to the next, whose sum is added to.
template <class T, bool paired, int cells>
__attribute__((always_inline)) static inline void weigh_cells(T* logits, int64_t step, Vector<T> peak,
                                                              const LogitScale<T>& scale, Vector<T>& sum) {
  const Vector<T> largest = opaque(splat(scale.largest));
  Vector<T> e[cells];
#pragma GCC unroll 8
  for (int x = 0; x < cells; ++x) e[x] = smaller<T>(peak - load(logits + x * step), largest);
  if constexpr (paired)
    exp2_negated(e, scale.scale, Exp2<T>::rough);
  else
    exp2_negated(e, scale.scale, Exp2<T>::exact);
#pragma GCC unroll 8
  for (int x = 0; x < cells; ++x) sum += e[x];
#pragma GCC unroll 8
  for (int x = 0; x < cells; x += 1 + paired)
    if constexpr (paired)
      store(logits + x * step, x + 1 < cells ? join_pairs(e[x], e[x + 1]) : e[x]);
    else
      store(logits + x * step, e[x]);
}

// Of at most so many.
template <class T, bool paired, int most_cells = tile_cells>
static inline void weigh_row(int64_t cells, T* logits, int64_t step, Vector<T> peak, const LogitScale<T>& scale,
                             Vector<T>& sum) {
  if constexpr (most_cells > 1)
    if (cells < most_cells) return weigh_row<T, paired, most_cells - 1>(cells, logits, step, peak, scale, sum);
  weigh_cells<T, paired, most_cells>(logits, step, peak, scale, sum);
}

// In place: exp2 of the logits of a window less their maximum, `peak`, times the scale; returns 1 / sum. The maximum is
// taken off before anything is rounded: a product less a rounded product may be positive, and of large logits huge.
// Cells that are added in pairs become pairs, in the place of the first.
template <class T, bool paired>
static inline Vector<T> exponentiate(T* logits, const MapLayout<T>& layout, Vector<T> peak,
                                     const LogitScale<T>& scale) {
  constexpr int64_t count = lanes<T>, block = tile_cells / 2 * 2;
  const int64_t window = layout.window, stride = layout.stride, step = stride * count;
  Vector<T> sum = {};
  for (int64_t row = 0; row < window; ++row)
    for (int64_t phase = 0; phase < least(stride, window); ++phase) {
      T* cell = logits + (row * window + phase) * count;
      int64_t cells = layout.window_cells(phase);
      for (; cells > tile_cells; cells -= block, cell += block * step)
        weigh_cells<T, paired, block>(cell, step, peak, scale, sum);
      weigh_row<T, paired>(cells, cell, step, peak, scale, sum);
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

template <class T, class Term, int spacing, int channels>
static void attend_channels(const MapLayout<T>& layout, const Step* steps, int64_t rows, const T* weight,
                            const Vector<T>* factor, const T* value, int64_t first, const Rows<T>& to, bool add) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, stride = layout.stride;
  Vector<T> sum[tile_rows][channels] = {};
  for (int64_t phase = 0; phase < least(stride, window); ++phase)
    add_steps<T, Term, spacing, channels>(sum, steps, stride * (rows - 1) + window,
                                          {weight + phase * count, (window - stride) * window * count, stride * count,
                                           value + first * layout.pitch + layout.cell_offset(phase), layout.interleave,
                                           layout.pitch, layout.window_cells(phase)});
  T* line = to.data + first * to.pitch;
  const int64_t pitch = to.pitch, row = to.row;
#pragma GCC unroll 4
  for (int a = 0; a < tile_rows; ++a, line += row) {
    if (a == rows) return;
    const Vector<T> scale = opaque(factor[a]);
#pragma GCC unroll 8
    for (int j = 0; j < channels; ++j) {
      // Opaque: fused into the addition in some rows of a tile alone, results would differ by where tiles begin.
      const Vector<T> product = opaque(scale * sum[a][j]);
      store(line + j * pitch, add ? load(line + j * pitch) + product : product);
    }
  }
}

// Weighted sums of every channel over the windows of a tile, times factor[row], put into or added to `to`.
template <class T, class Term = Numbers<T>>
static void attend_tile(const MapLayout<T>& layout, int64_t head_size, const Step* steps, int64_t rows, const T* weight,
                        const Vector<T>* factor, const T* value, const Rows<T>& to, bool add) {
  with_spacing(layout, [&]<int spacing>() {
    constexpr int channels = spacing ? cut_channels : tile_channels;
    int64_t d = 0;
    for (; d + channels <= head_size; d += channels)
      attend_channels<T, Term, spacing, channels>(layout, steps, rows, weight, factor, value, d, to, add);
    for (; d < head_size; ++d) attend_channels<T, Term, 0, 1>(layout, steps, rows, weight, factor, value, d, to, add);
  });
}

// - W_p . q of a tile of queries, whose channels may be in pairs, `(tile row, 2, lane)`: how the logits fall with a
// key's location.
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
