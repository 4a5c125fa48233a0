// Scratch layout of attention's backward pass: maps padded by reflection, every window cell a constant offset.
//
// Several narrow maps are interleaved (column x of map g at x * interleave + g), so that neighbouring lanes are full
// at every width. Columns are split by their remainder modulo the stride ("phases"): window cell x of query X is at
// X + x / stride in phase x % stride. Rows are not padded but looked up, (row, channel, column) in memory.
#pragma once

#include "attention.h"

namespace acmix::ACMIX_ISA {

constexpr int64_t cache_bytes = 1 << 20, wanted_tasks = 8;

template <class T>
struct Layout {
  int64_t window, radius, stride, maps, interleave, groups;
  int64_t phase_pitch, key_pitch, key_row, margin, query_pitch, query_row, padded_width;
  int64_t bands, band_rows;

  explicit Layout(const Attention& problem) {
    const Shape& shape = problem.shape;
    constexpr int64_t count = lanes<T>;
    window = problem.window;
    radius = window / 2;
    stride = shape.stride;
    maps = shape.batch * shape.heads;
    interleave = choose_interleave(shape.width_out);
    groups = ceil_divide(maps, interleave);
    padded_width = shape.width + 2 * radius;
    const int64_t reach = (window - 1) / stride * interleave;
    const int64_t computed = round_up(shape.width_out * interleave, count) + reach;
    const int64_t stored = most(ceil_divide(padded_width, stride) * interleave, radius + round_up(shape.width, count));
    phase_pitch = round_up(most(computed, stored), count);
    key_pitch = stride * phase_pitch;
    // The gather of the backward pass reads queries up to `reach` before and behind the map.
    margin = round_up(reach, count);
    query_pitch = margin + phase_pitch;
    key_row = shape.head_size * key_pitch;
    query_row = shape.head_size * query_pitch;
    cut(shape);
  }

  // Few enough maps at once to leave work for four threads.
  int64_t choose_interleave(int64_t width) const {
    int64_t chosen = 1;
    auto wasteful = [&] { return 5 * chosen * width < 4 * round_up(chosen * width, lanes<T>); };
    while (wasteful() && 8 * chosen <= maps && (chosen < 4 || chosen * width < lanes<T>)) chosen *= 2;
    return chosen;
  }

  // Bands of rows: small enough for the cache, many enough for the threads; never fewer rows than a reflection needs.
  void cut(const Shape& shape) {
    const int64_t row_bytes = 4 * key_row * static_cast<int64_t>(sizeof(T));
    const int64_t shortest = round_up(3 * window, stride);
    const int64_t cached = most(cache_bytes / row_bytes - window, shortest);
    const int64_t shared = most(ceil_divide(shape.height, ceil_divide(wanted_tasks, groups)), shortest);
    bands = most(shape.height / least(cached, shared), 1);
    band_rows = round_up(ceil_divide(shape.height, bands), stride);
    bands = ceil_divide(shape.height, band_rows);
    if (bands > 1 && shape.height - (bands - 1) * band_rows <= radius) --bands;
  }

  int64_t tasks() const { return groups * bands; }
  int64_t last_row(const Shape& shape, int64_t band) const {
    return band == bands - 1 ? shape.height : (band + 1) * band_rows;
  }
  int64_t members(int64_t group) const { return least(interleave, maps - group * interleave); }
  bool direct() const { return stride == 1 && interleave == 1; }
  int64_t cell_offset(int64_t cell) const { return cell % stride * phase_pitch + cell / stride * interleave; }
};

// Column tables and one unpadded row, shared by packing and unpacking.
template <class T>
struct Columns {
  int32_t *source, *slot;
  T* line;
  int64_t line_pitch;

  Columns(const Layout<T>& layout, const Shape& shape, Arena<T>& arena) {
    source = reinterpret_cast<int32_t*>(arena.take(layout.padded_width));
    slot = reinterpret_cast<int32_t*>(arena.take(layout.padded_width));
    line_pitch = round_up(shape.width, lanes<T>);
    line = arena.take(shape.head_size * line_pitch);
    if (!arena.memory) return;
    for (int64_t c = 0; c < layout.padded_width; ++c) {
      source[c] = static_cast<int32_t>(reflect(c - layout.radius, shape.width));
      slot[c] = static_cast<int32_t>(c % layout.stride * layout.phase_pitch + c / layout.stride * layout.interleave);
    }
  }
};

static inline int64_t row_offset(const Field& field, const Shape& shape, int64_t map, int64_t row) {
  return map / shape.heads * field.batch + map % shape.heads * field.outer + row * field.row;
}

// Works on whole registers: lines and column_location have room up to the next one.
template <class T>
static void subtract_position(const Attention& problem, int64_t row, T* line, int64_t pitch) {
  if (!problem.position) return;
  const Shape& shape = problem.shape;
  const T* weight = static_cast<const T*>(problem.position);
  const T* x = static_cast<const T*>(problem.column_location);
  const T y = static_cast<const T*>(problem.row_location)[row];
  for (int64_t d = 0; d < shape.head_size; ++d) {
    const T across = weight[2 * d], down = weight[2 * d + 1] * y;
    for (int64_t c = 0; c < shape.width; c += lanes<T>) {
      T* cells = line + d * pitch + c;
      store(cells, load(cells) - (across * load(x + c) + down));
    }
  }
}

// Rows [first, last) of keys or values of one group, `(row, channel, key_pitch)`; keys lose their position.
template <class T>
static void pack_keys(const Attention& problem, const Layout<T>& layout, const Columns<T>& columns, const Field& field,
                      bool is_key, int64_t group, int64_t first, int64_t last, T* to) {
  const Shape& shape = problem.shape;
  const int64_t pitch = layout.key_pitch, interior = layout.radius + shape.width;
  for (int64_t g = 0; g < layout.members(group); ++g)
    for (int64_t row = first; row < last; ++row) {
      T* target = to + (row - first) * shape.head_size * pitch;
      T* line = layout.direct() ? target + layout.radius : columns.line;
      const int64_t line_pitch = layout.direct() ? pitch : columns.line_pitch;
      load_lines(field, row_offset(field, shape, group * layout.interleave + g, row), field.inner, field.column,
                 shape.head_size, shape.width, line, line_pitch);
      if (is_key) subtract_position(problem, row, line, line_pitch);
      for (int64_t d = 0; d < shape.head_size; ++d) {
        T* cells = target + d * pitch;
        const T* values = line + d * line_pitch;
        if (layout.direct()) {
          for (int64_t c = 0; c < layout.radius; ++c) cells[c] = values[columns.source[c]];
          for (int64_t c = interior; c < layout.padded_width; ++c) cells[c] = values[columns.source[c]];
        } else if (layout.interleave == 1) {
          split_phases(values, shape.width, layout.stride, layout.radius, cells, layout.phase_pitch);
          for (int64_t c = 0; c < layout.radius; ++c) cells[columns.slot[c]] = values[columns.source[c]];
          for (int64_t c = interior; c < layout.padded_width; ++c) cells[columns.slot[c]] = values[columns.source[c]];
        } else {
          for (int64_t c = 0; c < layout.padded_width; ++c) cells[columns.slot[c] + g] = values[columns.source[c]];
        }
      }
    }
}

// Query rows [first, last) of one group, times scale, `(row, channel, query_pitch)`.
template <class T>
static void pack_queries(const Attention& problem, const Layout<T>& layout, const Columns<T>& columns,
                         const Field& field, int64_t step, T scale, int64_t group, int64_t first, int64_t last, T* to) {
  const Shape& shape = problem.shape;
  const int64_t pitch = layout.query_pitch;
  for (int64_t g = 0; g < layout.members(group); ++g)
    for (int64_t row = first; row < last; ++row) {
      T* target = to + (row - first) * shape.head_size * pitch + layout.margin + g;
      const bool direct = layout.interleave == 1;
      T* line = direct ? target : columns.line;
      const int64_t line_pitch = direct ? pitch : columns.line_pitch;
      load_lines(field, row_offset(field, shape, group * layout.interleave + g, step * row), field.inner,
                 step * field.column, shape.head_size, shape.width_out, line, line_pitch);
      for (int64_t d = 0; d < shape.head_size; ++d)
        if (!direct)
          for (int64_t x = 0; x < shape.width_out; ++x)
            target[d * pitch + x * layout.interleave] = scale * line[d * line_pitch + x];
        else if (scale != T(1))
          for (int64_t x = 0; x < shape.width_out; x += lanes<T>)
            store(target + d * pitch + x, scale * load(target + d * pitch + x));
    }
}

// Row `row` of the group's outputs or query gradients, `(channel, query_pitch)` from the first column on.
template <class T>
static void unpack_queries(const Attention& problem, const Layout<T>& layout, const Columns<T>& columns, const T* from,
                           const Field& field, int64_t step, int64_t group, int64_t row, bool add) {
  const Shape& shape = problem.shape;
  for (int64_t g = 0; g < layout.members(group); ++g) {
    const T* line = from;
    int64_t line_pitch = layout.query_pitch;
    if (layout.interleave > 1) {
      for (int64_t d = 0; d < shape.head_size; ++d)
        for (int64_t x = 0; x < shape.width_out; ++x)
          columns.line[d * columns.line_pitch + x] = from[d * layout.query_pitch + x * layout.interleave + g];
      line = columns.line;
      line_pitch = columns.line_pitch;
    }
    store_lines(line, line_pitch, field, row_offset(field, shape, group * layout.interleave + g, step * row),
                field.inner, step * field.column, shape.head_size, shape.width_out, add);
  }
}

}  // namespace acmix::ACMIX_ISA
