// Local attention, backward, of one head: softmax weights and their gradients ("slopes") are made again a few query
// rows at a time, kept in a ring of rows, and gathered by tiles of keys (no atomics: bitwise the same for any number of
// threads).
#pragma once

#include "backward/layout.h"
#include "stage_two/attention.h"

namespace acmix::ACMIX_ISA {

// Cells of the ring that border queries see by reflection, and the cells of their windows that lie there themselves.
struct Fold {
  int64_t from, to;
};

template <class T>
struct AttentionScratch {
  Step* steps;
  Fold* folds;
  int64_t* cells;                                          // how far the columns of a window are
  int64_t ring_rows, ring_part, ring_row, fold_count = 0;  // ring: (row, weights and slopes, cell, column)
  T *weights, *peaks, *slopes, *descents, *sums, *position_sums;
  T *own, *ring;  // own: 1 in the strip's own query columns
  Strip columns;

  AttentionScratch(const Mix& problem, const BackwardLayout<T>& layout, Arena<T>& arena) {
    const Shape& shape = problem.shape;
    const int64_t size = layout.window * layout.window;
    ring_part = size * layout.query_pitch;
    ring_row = 2 * ring_part;
    ring_rows = layout.ring_rows(layout.window, layout.stride);
    steps = take_steps(layout, arena);
    folds = reinterpret_cast<Fold*>(take_integers(arena, 4 * layout.radius * layout.window));
    cells = take_integers(arena, layout.window);
    weights = arena.take(tile_rows * size * lanes<T>);
    peaks = arena.take(tile_rows * lanes<T>);
    slopes = arena.take(tile_rows * size * lanes<T>);
    descents = arena.take(tile_rows * 2 * lanes<T>);
    sums = arena.take(tile_rows * 2 * lanes<T>);
    position_sums = arena.take(2 * shape.head_size * lanes<T>);
    own = arena.take(layout.query_pitch);
    ring = take_padded(arena, ring_rows * ring_row, layout.margin);
    if (!arena.memory) return;
    ring += layout.lead;
    own += layout.lead;
    // Keys at the border read, and multiply by zero, columns that no query has written.
    clear(ring, -layout.lead, ring_rows * ring_row - layout.lead);
    for (int64_t c = 0; c < layout.window; ++c) cells[c] = layout.cell_offset(c);
  }

  // Make the tables of the strip that has these output columns.
  void aim(const Shape& shape, const BackwardLayout<T>& layout, const Strip& strip) {
    columns = strip;
    for (int64_t x = -layout.lead; x < layout.query_pitch - layout.lead; ++x)
      own[x] = x >= 0 && x < strip.size() * layout.interleave;
    fold_count = 0;
    for (int64_t x = most(0, strip.first - layout.lead); x < least(shape.width_out, strip.last + layout.trail); ++x)
      for (int64_t c = 0; c < layout.window; ++c) {
        const int64_t place = layout.stride * x + c - layout.radius, mirrored = reflect(place, shape.width);
        if (mirrored == place) continue;
        const int64_t column = (x - strip.first) * layout.interleave;
        folds[fold_count++] = {c * layout.query_pitch + column, (c + mirrored - place) * layout.query_pitch + column};
      }
  }

  T* ring_of(int64_t y) const { return ring + y % ring_rows * ring_row; }
};

// Of a tile of query rows from y on at one register of columns: softmax weights (times the rate) and slopes
// d loss / d logit into the ring, sums of slopes times (column, row) location of their keys; returns the sum of
// d loss / d rate. `check` becomes NaN where a slope, as of a NaN weight, is not finite.
template <class T>
static Vector<T> differentiate(const Mix& problem, const BackwardLayout<T>& layout, const AttentionScratch<T>& scratch,
                               const T* locations, int64_t y, int64_t rows, int64_t column, Vector<T>& check) {
  constexpr int64_t count = lanes<T>;
  const int64_t window = layout.window, cells = window * window;
  const LogitScale<T> scale(problem.shape.head_size);
  const T rate = static_cast<T>(problem.attention.rate);
  const T* row_locations = static_cast<const T*>(problem.attention.row_location);
  const auto own = load(scratch.own + column) > T(0);
  // Weights that exponentiate holds up are nothing beside the largest, and must be nothing beside large slopes, too.
  Vector<T> least_weight[] = {splat(scale.largest)};
  exp2_negated(least_weight, scale.scale, Exp2<T>::exact);
  Vector<T> rate_gradient = {};
  for (int64_t a = 0; a < rows; ++a) {
    T *weights = scratch.weights + a * cells * count, *slopes = scratch.slopes + a * cells * count;
    T *ring_weights = scratch.ring_of(y + a) + column, *ring_slopes = ring_weights + scratch.ring_part;
    const Vector<T> inverse = exponentiate<T, false>(weights, layout, load(scratch.peaks + a * count), scale);
    Vector<T> delta = {};
    for (int64_t j = 0; j < cells; ++j) delta += load(weights + j * count) * load(slopes + j * count);
    delta *= inverse;
    rate_gradient += delta;
    const Vector<T> factor = inverse * rate;
    Vector<T> across = {}, down = {};
    for (int64_t t = 0, j = 0; t < window; ++t) {
      Vector<T> sum = {};
      for (int64_t c = 0; c < window; ++c, ++j) {
        const Vector<T> weight = factor * (load(weights + j * count) - least_weight[0]);
        const Vector<T> slope = weight * (load(slopes + j * count) - delta);
        sum += slope;
        across += slope * load(locations + scratch.cells[c]);
        store(slopes + j * count, slope);
        store(ring_weights + j * layout.query_pitch, weight);
        store(ring_slopes + j * layout.query_pitch, slope);
      }
      down += sum * row_locations[scratch.steps[layout.stride * a + t].row];
    }
    check += T(0) * down;
    // What other strips count stays out of sums over columns.
    store(scratch.sums + 2 * a * count, own ? across : Vector<T>{});
    store(scratch.sums + (2 * a + 1) * count, own ? down : Vector<T>{});
  }
  return own ? rate_gradient : Vector<T>{};
}

// Add to the cells that border queries see themselves what they see there by reflection.
template <class T>
static void fold_ring(const BackwardLayout<T>& layout, const AttentionScratch<T>& scratch, int64_t height, int64_t y) {
  const int64_t line = layout.window * layout.query_pitch;
  for (T* part = scratch.ring_of(y); part < scratch.ring_of(y) + scratch.ring_row; part += scratch.ring_part) {
    for (int64_t i = 0; i < scratch.fold_count; ++i)
      for (int64_t t = 0; t < layout.window; ++t)
        for (int64_t g = 0; g < layout.interleave; ++g)
          part[t * line + scratch.folds[i].to + g] += part[t * line + scratch.folds[i].from + g];
    for (int64_t t = 0; t < layout.window; ++t) {
      const int64_t row = layout.stride * y + t - layout.radius, mirrored = reflect(row, height);
      if (mirrored == row) continue;
      const T* from = part + t * line - layout.lead;
      T* to = part + (t + mirrored - row) * line - layout.lead;
      for (int64_t i = 0; i < line; i += lanes<T>) store(to + i, load(to + i) + load(from + i));
    }
  }
}

// Through k - W_p . location: gradients of the queries of one tile at one register, and of W_p.
template <class T>
static void differentiate_position(const Mix& problem, const AttentionScratch<T>& scratch, int64_t rows,
                                   const Rows<const T>& query, const Rows<T>& to) {
  constexpr int64_t count = lanes<T>;
  const int64_t head_size = problem.shape.head_size;
  const T* weight = static_cast<const T*>(problem.attention.position);
  const T scale = inverse_root<T>(head_size);
  for (int64_t a = 0; a < rows; ++a) {
    const Vector<T> across = scale * load(scratch.sums + 2 * a * count);
    const Vector<T> down = scale * load(scratch.sums + (2 * a + 1) * count);
    for (int64_t d = 0; d < head_size; ++d) {
      T *total = scratch.position_sums + 2 * d * count, *place = to.data + a * to.row + d * to.pitch;
      const Vector<T> q = load(query.data + a * query.row + d * query.pitch);
      store(total, load(total) - q * across);
      store(total + count, load(total + count) - q * down);
      store(place, load(place) - (across * weight[2 * d] + down * weight[2 * d + 1]));
    }
  }
}

// What the backward pass of one head reads and adds to, in scratch.
template <class T>
struct HeadMaps {
  const T *query, *key, *value, *output_gradient;     // from rows band.begin and band.out_begin on
  T *query_gradient, *key_gradient, *value_gradient;  // from row band.first on
};

// What queries of row y with slopes that are not finite give to the band's own keys and values. In the ring they would
// meet the zeros beside maps, which they turn into NaN of other keys: they leave zeros there.
template <class T>
static void give_apart(const Mix& problem, const BackwardLayout<T>& layout, const AttentionScratch<T>& scratch,
                       const BackwardBand& band, const HeadMaps<T>& maps, int64_t y) {
  const Shape& shape = problem.shape;
  const Strip& columns = scratch.columns;
  const int64_t window = layout.window, stride = layout.stride, first = stride * columns.first;
  const int64_t last = least(stride * columns.last, shape.width);
  const T scale = inverse_root<T>(shape.head_size);
  for (int64_t x = -layout.lead; x < layout.query_pitch - layout.lead; ++x) {
    const int64_t column = columns.first + floor_divide(x, layout.interleave);
    const T* query = maps.query + (stride * y - band.begin) * layout.row + x;
    const T* gradient = maps.output_gradient + (y - band.out_begin) * layout.out_row + x;
    T *weights = scratch.ring_of(y) + x, *slopes = weights + scratch.ring_part;
    T check = 0;
    for (int64_t j = 0; j < window * window; ++j) check += T(0) * slopes[j * layout.query_pitch];
    if (check == T(0)) continue;
    for (int64_t j = 0; j < window * window; ++j) {
      T &weight = weights[j * layout.query_pitch], &slope = slopes[j * layout.query_pitch];
      const int64_t row = stride * y + j / window - layout.radius, place = stride * column + j % window - layout.radius;
      const int64_t to = (row - band.first) * layout.row + layout.columns.slot(place - first) + x -
                         floor_divide(x, layout.interleave) * layout.interleave;
      const bool own = row >= band.first && row < band.last && place >= first && place < last;
      for (int64_t d = 0; own && column >= 0 && column < shape.width_out && d < shape.head_size; ++d) {
        maps.key_gradient[to + d * layout.pitch] += scale * slope * query[d * layout.pitch];
        maps.value_gradient[to + d * layout.pitch] += weight * gradient[d * layout.outputs.pitch()];
      }
      weight = slope = T(0);
    }
  }
}

// Weights, slopes and query gradients of the query rows [y, y + rows); the sum of d loss / d rate.
template <class T>
static Vector<T> backward_queries(const Mix& problem, const BackwardLayout<T>& layout,
                                  const AttentionScratch<T>& scratch, const T* locations, const BackwardBand& band,
                                  const HeadMaps<T>& maps, int64_t y, int64_t rows) {
  const Shape& shape = problem.shape;
  const bool own = y >= band.own_first && y < band.own_last;
  Vector<T> scale[tile_rows], rate_gradient = {}, check = {};
  for (auto& value : scale) value = splat(inverse_root<T>(shape.head_size));
  window_steps(layout, shape, y, rows, band.begin, scratch.steps);
  const int64_t end = scratch.columns.size() * layout.interleave + layout.trail;
  for (int64_t x = -layout.lead; x < end; x += lanes<T>) {
    const Rows<const T> query = {maps.query + (layout.stride * y - band.begin) * layout.row + x,
                                 layout.stride * layout.row, layout.pitch};
    const Rows<const T> gradient = {maps.output_gradient + (y - band.out_begin) * layout.out_row + x, layout.out_row,
                                    layout.outputs.pitch()};
    Location<T> location = {};
    if (problem.attention.position) {
      locate(problem, rows, query, scratch.descents);
      location = {scratch.descents, locations + x, static_cast<const T*>(problem.attention.row_location)};
    }
    dot_window(layout, shape.head_size, scratch.steps, rows, query, maps.key + x, location, scratch.weights,
               scratch.peaks);
    dot_window(layout, shape.head_size, scratch.steps, rows, gradient, maps.value + x, Location<T>{}, scratch.slopes);
    const Vector<T> sum = differentiate(problem, layout, scratch, locations + x, y, rows, x, check);
    if (!own) continue;
    rate_gradient += sum;
    const Rows<T> to = {maps.query_gradient + (layout.stride * y - band.first) * layout.row + x,
                        layout.stride * layout.row, layout.pitch};
    attend_tile(layout, shape.head_size, scratch.steps, rows, scratch.slopes, scale, maps.key + x, to, true);
    if (problem.attention.position) differentiate_position(problem, scratch, rows, query, to);
  }
  bool finite = true;
  for (int l = 0; l < lanes<T>; ++l) finite &= check[l] == T(0);
  for (int64_t a = 0; a < rows; ++a) {
    fold_ring(layout, scratch, shape.height, y + a);
    if (!finite) give_apart(problem, layout, scratch, band, maps, y + a);
  }
  return rate_gradient;
}

template <class T, int spacing, int channels>
static inline void gather_channels(const BackwardLayout<T>& layout, const Step* steps, int64_t step_count, int64_t rows,
                                   int64_t cell, const T* weight, const Rows<const T>& value, T scale,
                                   const Rows<T>& to) {
  const int64_t stride = layout.stride, window = layout.window, pitch = layout.query_pitch;
  Vector<T> sum[tile_rows][channels] = {};
  if (cell < window)
    add_steps<T, Numbers<T>, -spacing, channels>(
        sum, steps, step_count,
        {weight, stride * window * pitch, stride * pitch - layout.interleave, value.data, -layout.interleave,
         value.pitch, ceil_divide(window - cell, stride)});
#pragma GCC unroll 4
  for (int a = 0; a < tile_rows; ++a)
    if (a < rows)
#pragma GCC unroll 8
      for (int j = 0; j < channels; ++j) {
        T* place = to.data + a * to.row + j * to.pitch;
        store(place, load(place) + scale * sum[a][j]);
      }
}

// Gradients of the key (or value) rows `row` + stride * a, a < rows: the weighted sum, times scale, of the queries (or
// output gradients) whose windows they lie in, added to `to`; value.data is `skipped` cells behind query row 0.
template <class T>
static void gather_tile(const BackwardLayout<T>& layout, const AttentionScratch<T>& scratch, int64_t head_size,
                        const BackwardBand& band, int64_t row, int64_t rows, const T* ring, const Rows<const T>& value,
                        int64_t skipped, T scale, const Rows<T>& to) {
  const int64_t window = layout.window, stride = layout.stride;
  const int64_t first = most(band.query_first, -floor_divide(layout.radius - row, stride));
  const int64_t last = least(band.query_last, (row + stride * (rows - 1) + layout.radius) / stride + 1);
  int64_t count = 0;
  for (int64_t y = first; y < last; ++y) {
    const int64_t offset = row - stride * y + layout.radius;
    scratch.steps[count++] = {
        offset < 0 ? ceil_divide(-offset, stride) : 0, least(rows - 1, floor_divide(window - 1 - offset, stride)),
        y % scratch.ring_rows * scratch.ring_row + offset * window * layout.query_pitch, y * value.row - skipped, y};
  }
  for (int64_t phase = 0; phase < stride; ++phase) {
    // The cells in whose column a key of this phase lies, and how far right of it the query of the first one is.
    const int64_t cell = (phase + layout.radius) % stride;
    const int64_t shift = (phase + layout.radius) / stride * layout.interleave;
    for (int64_t x = 0; x < scratch.columns.size() * layout.interleave; x += lanes<T>) {
      const T* weight = ring + cell * layout.query_pitch + x + shift;
      Rows<const T> from = {value.data + x + shift, value.row, value.pitch};
      Rows<T> out = {to.data + phase * layout.columns.phase_pitch + x, to.row, to.pitch};
      with_spacing(layout, [&]<int spacing>() {
        constexpr int channels = spacing ? cut_channels : tile_channels;
        int64_t d = 0;
        for (; d + channels <= head_size; d += channels) {
          gather_channels<T, spacing, channels>(layout, scratch.steps, count, rows, cell, weight, from, scale, out);
          from.data += channels * from.pitch;
          out.data += channels * out.pitch;
        }
        for (; d < head_size; ++d) {
          gather_channels<T, 0, 1>(layout, scratch.steps, count, rows, cell, weight, from, scale, out);
          from.data += from.pitch;
          out.data += out.pitch;
        }
      });
    }
  }
}

// Add the gradients of one head's maps on the band's own rows; position_sums of scratch grow. Returns d loss / d rate.
template <class T>
static Vector<T> backward_head(const Mix& problem, const BackwardLayout<T>& layout, const AttentionScratch<T>& scratch,
                               const T* locations, const BackwardBand& band, const HeadMaps<T>& maps) {
  const int64_t stride = layout.stride, head_size = problem.shape.head_size;
  const Rows<const T> query = {maps.query, stride * layout.row, layout.pitch};
  const Rows<const T> gradient = {maps.output_gradient, layout.out_row, layout.outputs.pitch()};
  Vector<T> rate_gradient = {};
  int64_t made = band.query_first;
  for (int64_t block = band.first; block < band.last; block += stride * tile_rows) {
    const int64_t needed = least(band.query_last, (block + stride * tile_rows - 1 + layout.radius) / stride + 1);
    while (made < needed) {
      // A tile never straddles the border of the band's own queries.
      const int64_t border = made < band.own_first  ? band.own_first
                             : made < band.own_last ? band.own_last
                                                    : band.query_last;
      const int64_t rows = least(tile_rows, border - made);
      rate_gradient += backward_queries(problem, layout, scratch, locations, band, maps, made, rows);
      made += rows;
    }
    for (int64_t row = block; row < least(block + stride, band.last); ++row) {
      const int64_t rows = least(tile_rows, ceil_divide(band.last - row, stride)), to = (row - band.first) * layout.row;
      gather_tile<T>(layout, scratch, head_size, band, row, rows, scratch.ring + scratch.ring_part, query,
                     band.begin * layout.row, inverse_root<T>(head_size),
                     {maps.key_gradient + to, stride * layout.row, layout.pitch});
      gather_tile<T>(layout, scratch, head_size, band, row, rows, scratch.ring, gradient,
                     band.out_begin * layout.out_row, T(1),
                     {maps.value_gradient + to, stride * layout.row, layout.pitch});
    }
  }
  return rate_gradient;
}

}  // namespace acmix::ACMIX_ISA
