// How the forward pass is cut: bands of output rows, each with the rows that it reads.
#pragma once

#include "layout/maps.h"

namespace acmix::ACMIX_ISA {

// Of the rows that a band brings, which should stay in the second-level cache.
constexpr int64_t band_bytes = 2 << 20;

// Rows [begin, end) of the map are in scratch, for the output rows [first, last); those before `fresh` were kept.
struct ForwardBand {
  int64_t first, last, begin, fresh, end;
};

template <class T>
struct ForwardLayout : MapLayout<T> {
  Columns outputs;
  int64_t out_row, bands, band_rows, rows, shared_rows;  // shared: of the maps, by neighbouring bands

  explicit ForwardLayout(const Mix& problem)
      : MapLayout<T>(problem, widest_strip, 1, adjacent(problem) ? problem.threads : 0, true) {
    const Shape& shape = problem.shape;
    const MapLayout<T>& map = *this;
    outputs = {1, map.interleave, map.out_pitch};
    out_row = shape.heads * shape.head_size * map.out_pitch;
    const int64_t in_row = map.row + problem.projection.inputs * map.stride * map.out_pitch;
    // Every band reads all weights, so it brings no less than them.
    const int64_t weights = 3 * shape.heads * shape.head_size * problem.projection.inputs;
    // Pairs are half as many bytes as numbers.
    const int64_t size = static_cast<int64_t>(map.paired ? sizeof(Brain) : sizeof(T));
    const int64_t cells = most(band_bytes / size, weights);
    const int64_t cached = most(cells / (map.stride * in_row + out_row), ceil_divide(2 * map.halo + 1, map.stride));
    const int64_t shared =
        most(ceil_divide(shape.height_out, ceil_divide(problem.threads, map.groups * map.strips)), tile_rows);
    bands = ceil_divide(shape.height_out, least(cached, shared));
    band_rows = ceil_divide(shape.height_out, bands);
    bands = ceil_divide(shape.height_out, band_rows);
    rows = map.stride * (band_rows - 1) + 1 + 2 * map.halo;
    shared_rows = most(0, rows - map.stride * band_rows);
  }

  // Pixels whose channels are adjacent are brought one by one anyway.
  static bool adjacent(const Mix& problem) {
    const Field& from = problem.projection.inputs ? problem.projection.input : problem.query;
    return from.inner == 1 && problem.output.inner == 1;
  }
};

}  // namespace acmix::ACMIX_ISA
