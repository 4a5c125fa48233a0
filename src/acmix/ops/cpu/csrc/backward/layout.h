// How the backward pass is cut: bands of input rows with the rows that their gradients need, slices that sum.
#pragma once

#include "layout/maps.h"

namespace acmix::ACMIX_ISA {

// The ring must stay in the second-level cache; the rest of a band is read row by row, and must leave the other threads
// their part of the last cache. Projections of a band's halo are computed again: a band of so few rows may take more.
constexpr int64_t ring_bytes = 3 << 18, band_cache_bytes = 8 << 20, short_band = 28, short_band_bytes = 16 << 20;
constexpr int64_t wanted_items = 8, most_slices = 64;

// Input rows [first, last) of a band, whose gradients it writes; map rows [begin, end) and output rows
// [out_begin, out_end) in scratch; query rows that see the band, and those that lie in it ("own").
struct BackwardBand {
  int64_t first, last, begin, end, out_begin, out_end, query_first, query_last, own_first, own_last;
};

template <class T>
struct BackwardLayout : MapLayout<T> {
  Columns outputs;  // of the output's gradient, with a halo
  int64_t out_row, out_halo, map_halo, bands, band_rows, rows, out_rows;
  int64_t lead, trail, query_pitch;  // query columns that see a strip's keys from its left, its right; of the ring
  int64_t tasks, slices, parts;      // slices of the tasks, parts of the passes of one slice

  explicit BackwardLayout(const Mix& problem) : MapLayout<T>(problem, widest(problem), 2, 2, false) {
    const Shape& shape = problem.shape;
    const MapLayout<T>& map = *this;
    const int64_t size = static_cast<int64_t>(sizeof(T));
    outputs = {1, map.interleave, map.columns.phase_pitch};
    out_row = shape.heads * shape.head_size * outputs.pitch() + lanes<T>;
    out_halo = ceil_divide(map.halo, map.stride);
    map_halo = most(2 * map.radius, map.padding);
    lead = map.strips > 1 ? map.radius / map.stride : 0;
    trail = map.strips > 1 ? ceil_divide(map.radius, map.stride) : 0;
    query_pitch = map.out_pitch + round_up(lead + trail, lanes<T>);
    // Cells of the ring a multiple of 512 bytes apart would fall into few sets of the first-level cache.
    if (query_pitch * size % 512 == 0) query_pitch += lanes<T>;
    // Every band computes the queries of its halo again: no shorter than twice the window.
    const int64_t shortest = round_up(2 * most(map.window, 1), map.stride);
    const int64_t inputs = problem.projection.inputs;
    // Of a pixel: its inputs, twice one and a half times in tiles, their gradient, and outside tiles that of
    // projections.
    const int64_t cells = in_tiles<T> ? 4 * inputs : 3 * map.channels + 2 * inputs;
    const int64_t projected = inputs ? cells * map.pitch : 0;
    const int64_t in_row = 2 * map.row + ceil_divide(out_row, map.stride) + projected;
    auto rows_in = [&](int64_t bytes) { return bytes / (in_row * size) - 2 * map_halo; };
    const int64_t cached = most(rows_in(band_cache_bytes), inputs ? least(rows_in(short_band_bytes), short_band) : 0);
    const int64_t wanted = inputs ? problem.threads : wanted_items;
    const int64_t shared = ceil_divide(shape.height, ceil_divide(wanted, map.groups * map.strips * map.passes));
    bands = ceil_divide(shape.height, most(least(cached, shared), shortest));
    band_rows = round_up(ceil_divide(shape.height, bands), map.stride);
    bands = ceil_divide(shape.height, band_rows);
    rows = band_rows + 2 * map_halo;
    out_rows = band_rows / map.stride + 2 * out_halo;
    tasks = map.groups * map.strips * bands;
    slices = least(tasks, most_slices);
    parts = tasks < wanted_items ? map.passes : 1;
    if (!inputs) return;
    // A slice has a gradient of all weights, a part one of the whole input: whichever is smaller. Where tasks do not
    // divide evenly, no more parts than that takes.
    const int64_t items = 4 * problem.threads;
    const bool even = tasks % problem.threads == 0 || tasks >= items;
    const bool wide = 3 * shape.heads * shape.head_size > shape.batch * shape.height * shape.width;
    const int64_t balanced = wide ? map.passes : even ? 1 : ceil_divide(items, tasks);
    parts = least(balanced, least(problem.threads, map.passes));
    while (map.passes % parts) --parts;
    slices = least(slices, ceil_divide(problem.threads, parts));
  }

  static int64_t ring_rows(int64_t window, int64_t stride) { return (window - 1) / stride + 2 * tile_rows + 2; }
  // Output columns whose ring, with that of the queries beside them, takes ring_bytes.
  static int64_t widest(const Mix& problem) {
    const int64_t window = problem.attention.window, stride = problem.shape.stride;
    if (!window) return widest_strip;
    const int64_t column = 2 * window * window * ring_rows(window, stride) * static_cast<int64_t>(sizeof(T));
    return least(widest_strip, (ring_bytes / column - window / stride) / lanes<T> * lanes<T>);
  }

  BackwardBand band(const Shape& shape, int64_t index) const {
    const MapLayout<T>& map = *this;
    const int64_t stride = map.stride, zeros = ceil_divide(map.padding, stride);
    BackwardBand band;
    band.first = index * band_rows;
    band.last = least(band.first + band_rows, shape.height);
    band.begin = most(band.first - map_halo, -map.padding);
    band.end = least(band.last + map_halo, shape.height + map.padding);
    band.own_first = band.first / stride;
    band.own_last = ceil_divide(band.last, stride);
    band.out_begin = most(band.own_first - out_halo, -zeros);
    band.out_end = least(band.own_last + out_halo, shape.height_out + zeros);
    band.query_first = most(0, -floor_divide(map.radius - band.first, stride));
    band.query_last = least(shape.height_out, (band.last - 1 + map.radius) / stride + 1);
    return band;
  }
};

}  // namespace acmix::ACMIX_ISA
