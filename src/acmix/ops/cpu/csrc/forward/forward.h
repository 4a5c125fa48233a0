// Both paths, forward. A task is a band of output rows of a strip of a group of images: its projections are brought
// into scratch once, a few heads at a time, both paths read them there, and the sum is written once.
#pragma once

#include "forward/pairs.h"
#include "stage_one/stage_one.h"
#include "stage_two/attention.h"

namespace acmix::ACMIX_ISA {

template <class T>
struct ForwardScratch {
  MapScratch<T> maps;
  ConvolutionScratch<T> convolution;
  PairedWeights<T> pairs;
  PairedHeads<T> heads;
  ProjectionScratch<T> projection;
  Step* steps;
  int64_t* places;
  T *logits, *peaks, *slopes, *output, *given;
  T* kept;  // of every pass, the rows that the next band shares

  ForwardScratch(const Mix& problem, const ForwardLayout<T>& layout, Arena<T>& arena)
      : maps(problem, layout, layout.rows, arena),
        convolution(problem, layout, layout.rows, arena),
        pairs(problem, layout, convolution, arena),
        heads(layout, arena),
        projection(problem, layout, layout.rows, false, arena) {
    const int64_t across = layout.out_pitch / lanes<T>, registers = layout.band_rows * across;
    steps = take_steps(layout, arena);
    places = take_integers(arena, registers);
    logits = arena.take(tile_rows * layout.window * layout.window * lanes<T>);
    peaks = arena.take(tile_rows * lanes<T>);
    slopes = arena.take(tile_rows * 2 * lanes<T>);
    output = arena.take(layout.band_rows * layout.out_row);
    given = arena.take(layout.paired && !problem.projection.inputs ? 3 * layout.channels * layout.pitch : 0);
    kept = arena.take(layout.bands > 1 ? layout.passes * layout.shared_rows * layout.maps_size() : 0);
    if (!arena.memory) return;
    for (int64_t i = 0; i < registers; ++i) places[i] = i / across * layout.out_row + i % across * lanes<T>;
  }

  // Make the tables of a strip.
  void aim(const Mix& problem, const ForwardLayout<T>& layout, int64_t strip) {
    if (!maps.aim(problem, layout, strip) || !problem.projection.inputs) return;
    projection.aim(layout, maps.inputs);
    // Projections leave alone what lies between maps: it must be numbers, not what another strip left there.
    clear(maps.maps, 0, layout.rows * layout.row);
  }
};

// What the maps of the heads from `head` on give to the convolution path of a band.
template <class T>
static void convolve_band(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                          int64_t head, const ForwardBand& band) {
  const ConvolutionScratch<T>& convolution = scratch.convolution;
  const T* kernel = static_cast<const T*>(problem.convolution.kernel);
  const int64_t heads = problem.shape.heads, unused = layout.halo - layout.padding;
  const int64_t rows = band.last - band.first, tapped_rows = band.end - band.begin - 2 * unused;
  const int64_t across = convolution.narrow_registers;
  const T* first = scratch.maps.maps + unused * layout.row;
  for (int64_t d = 0; d < problem.shape.head_size; ++d) {
    const Weights<const T> weights = convolution.kernel(kernel, problem, head, d);
    const Planes<T> output = {scratch.output + d * heads * layout.out_pitch, layout.out_pitch, heads, scratch.places,
                              head > 0};
    const T* tapped = nullptr;
    if constexpr (in_pairs<T>) {
      if (layout.paired && !problem.convolution.positions) {
        convolve_pairs(layout, scratch.pairs, first + layout.padding * layout.row, convolution.narrow, d, weights,
                       output, layout.out_row, rows, across, convolution.packed);
        continue;
      }
      if (layout.paired) tapped = mix_pairs(problem, layout, convolution, scratch.pairs, first, d, tapped_rows);
    }
    if (!tapped) tapped = tapped_maps(problem, layout, convolution, first, d, tapped_rows);
    convolve_maps<T>(
        {tapped + layout.padding * convolution.row, convolution.plane, convolution.count, convolution.narrow},
        convolution.row, weights, output, layout.out_row, layout.stride, rows, across, convolution.packed);
  }
}

// Attention of a tile of `rows` rows from y on, whose steps are made, of a head of which a row of queries, and keys and
// values begin here, added to or put into the output.
template <class T, class Term>
static void attend_rows(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                        int64_t rows, const Rows<const T>& queries, const T* key, const T* value, T* output) {
  constexpr bool paired = !std::is_same_v<Term, Numbers<T>>;
  const Attention& attention = problem.attention;
  const int64_t head_size = problem.shape.head_size, cells = layout.window * layout.window;
  const LogitScale<T> scale(head_size);
  for (int64_t x = 0; x < scratch.maps.outputs.size() * layout.interleave; x += lanes<T>) {
    const Rows<const T> query = {queries.data + x, queries.row, queries.pitch};
    Location<T> location = {};
    if (attention.position) {
      locate<T, Term>(problem, rows, query, scratch.slopes);
      location = {scratch.slopes, scratch.maps.locations + x, static_cast<const T*>(attention.row_location)};
    }
    dot_window<T, Term>(layout, paired ? layout.pairs : head_size, scratch.steps, rows, query, key + x, location,
                        scratch.logits, scratch.peaks);
    Vector<T> factor[tile_rows];
    for (int64_t a = 0; a < rows; ++a) {
      factor[a] = exponentiate<T, paired>(scratch.logits + a * cells * lanes<T>, layout,
                                          load(scratch.peaks + a * lanes<T>), scale);
      factor[a] *= static_cast<T>(attention.rate);
    }
    attend_tile<T, Term>(layout, head_size, scratch.steps, rows, scratch.logits, factor, value + x,
                         {output + x, layout.out_row, layout.out_pitch}, problem.convolution.kernel != nullptr);
  }
}

// Where the output of a head from row y of a band on lies.
template <class T>
static inline T* output_of(const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch, int64_t head,
                           const ForwardBand& band, int64_t y) {
  return scratch.output + head * layout.channels / layout.heads * layout.out_pitch + (y - band.first) * layout.out_row;
}

// Attention of the heads from `head` on, one after the other.
template <class T>
static void attend_numbers(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                           int64_t head, const ForwardBand& band) {
  const int64_t maps = layout.channels * layout.pitch;
  for (int64_t place = 0; place < layout.heads; ++place) {
    const T* queries = scratch.maps.maps + place * problem.shape.head_size * layout.pitch;
    for (int64_t y = band.first; y < band.last; y += tile_rows) {
      const int64_t rows = least(tile_rows, band.last - y);
      window_steps(layout, problem.shape, y, rows, band.begin, scratch.steps);
      attend_rows<T, Numbers<T>>(
          problem, layout, scratch, rows,
          {queries + (layout.stride * y - band.begin) * layout.row, layout.stride * layout.row, layout.pitch},
          queries + maps, queries + 2 * maps, output_of(layout, scratch, head + place, band, y));
    }
  }
}

// The same of maps in pairs, tile by tile, as long as their rows are in the cache.
template <class T>
static void attend_pairs(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                         int64_t head, const ForwardBand& band) {
  const PairedHeads<T>& pairs = scratch.heads;
  const int64_t stride = layout.stride;
  auto lines = [&](int64_t y) { return scratch.maps.maps + (y - band.begin) * layout.row; };
  int64_t made = most(0, stride * band.first - layout.radius);
  for (int64_t y = band.first; y < band.last; y += tile_rows) {
    const int64_t rows = least(tile_rows, band.last - y);
    const int64_t end = least(problem.shape.height, stride * (y + rows - 1) + layout.radius + 1);
    for (; made < end; ++made) pairs.pair_row(layout, lines(made), made);
    window_steps(layout, problem.shape, y, rows, band.begin, scratch.steps);
    for (int64_t t = 0; t < stride * (rows - 1) + layout.window; ++t)
      scratch.steps[t].value = pairs.row_of(scratch.steps[t].row);
    for (int64_t place = 0; place < layout.heads; ++place) {
      T* queries = pairs.query(place);
      for (int64_t a = 0; a < rows; ++a)
        pairs.pair_query(layout, lines(stride * (y + a)), place, layout.out_pitch, queries + a * pairs.query_row);
      attend_rows<T, Pairs<T>>(problem, layout, scratch, rows, {queries, pairs.query_row, layout.pitch},
                               pairs.key(place), pairs.value(place), output_of(layout, scratch, head + place, band, y));
    }
  }
}

// Rows of maps that are given.
template <class T>
static void bring_given_rows(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                             int64_t group, int64_t head, const RowSpan& rows) {
  if constexpr (in_pairs<T>)
    if (layout.paired) {
      clear_rows(problem, layout, scratch.maps, rows);
      for (int64_t row = most(rows.begin, 0); row < least(rows.end, problem.shape.height); ++row) {
        pack_maps(problem, layout, scratch.maps, group, head, row, 0, scratch.given);
        pair_maps(layout, scratch.given, row_of(layout, scratch.maps, row - rows.origin));
      }
      return;
    }
  pack_rows(problem, layout, scratch.maps, group, head, rows);
}

// The maps of the heads from `head` on: rows that the band before kept, others from memory or from packed input.
template <class T>
static void bring_rows(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                       int64_t group, int64_t head, const ForwardBand& band) {
  const int64_t height = problem.shape.height, kept = layout.maps_size();
  const RowSpan rows = {band.begin, band.fresh, band.end, band.fresh, band.end};
  T* saved = scratch.kept + head / layout.heads * layout.shared_rows * kept;
  if (problem.projection.inputs) {
    const int64_t first = most(band.fresh, 0), count = most(least(band.end, height) - first, 0);
    clear_rows(problem, layout, scratch.maps, rows);
    project_rows(problem, layout, scratch.projection, head, count, row_of(layout, scratch.maps, first - band.begin));
  } else {
    bring_given_rows(problem, layout, scratch, group, head, rows);
  }
  // The halo before them was cleared.
  const int64_t next = layout.stride * (band.last - band.first);
  for (int64_t row = 0; row < band.fresh - band.begin; ++row)
    copy_run(saved + row * kept, kept, row_of(layout, scratch.maps, row));
  for (int64_t row = 0; band.last < problem.shape.height_out && row < layout.shared_rows; ++row)
    copy_run(row_of(layout, scratch.maps, next + row), kept, saved + row * kept);
}

// Bias and ReLU of a row of the output, before it is written.
template <class T>
static void finish_row(const Mix& problem, int64_t pitch, T* row) {
  const T* bias = static_cast<const T*>(problem.ends.bias);
  for (int64_t c = 0; bias && c < problem.shape.heads * problem.shape.head_size; ++c) {
    T* cells = row + c * pitch;
    const Vector<T> addend = splat(bias[c]);
    for (int64_t x = 0; x < pitch; x += lanes<T>) {
      const Vector<T> sum = load(cells + x) + addend;
      store(cells + x, problem.ends.rectified ? rectify<T>(sum) : sum);
    }
  }
  if (problem.ends.rectified && !bias) rectify_run(row, problem.shape.heads * problem.shape.head_size * pitch);
}

template <class T>
static int64_t forward_tasks(const Mix& problem) {
  const ForwardLayout<T> layout(problem);
  return layout.groups * layout.strips * layout.bands;
}

template <class T>
static void forward_band(const Mix& problem, const ForwardLayout<T>& layout, const ForwardScratch<T>& scratch,
                         int64_t group, const ForwardBand& band) {
  const Shape& shape = problem.shape;
  if (problem.projection.inputs)
    pack_input(problem, layout, scratch.maps, scratch.projection, group, most(band.fresh, 0),
               least(band.end, shape.height));
  for (int64_t head = 0; head < shape.heads; head += layout.heads) {
    bring_rows(problem, layout, scratch, group, head, band);
    if (problem.convolution.kernel) convolve_band(problem, layout, scratch, head, band);
    if (!layout.window) continue;
    reflect_columns(layout, scratch.maps, most(0, -band.begin), least(shape.height, band.end) - band.begin);
    if constexpr (in_pairs<T>)
      if (layout.paired) {
        attend_pairs(problem, layout, scratch, head, band);
        continue;
      }
    attend_numbers(problem, layout, scratch, head, band);
  }
  const Field& field = problem.output;
  for (int64_t row = band.first; row < band.last; ++row) {
    T* from = scratch.output + (row - band.first) * layout.out_row;
    finish_row(problem, layout.out_pitch, from);
    unpack_row(layout.outputs, scratch.maps, from, field, group * layout.interleave * field.batch + row * field.row,
               shape.heads * shape.head_size, scratch.maps.outputs, layout.members(group, shape.batch));
  }
}

template <class T>
static void forward(const Mix& problem, int64_t first_task, int64_t last_task) {
  const ForwardLayout<T> layout(problem);
  Arena<T> arena;
  ForwardScratch<T>(problem, layout, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  ForwardScratch<T> scratch(problem, layout, arena);
  [[maybe_unused]] const ProductState state;
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t first = task % layout.bands * layout.band_rows;
    const int64_t last = least(first + layout.band_rows, problem.shape.height_out);
    scratch.aim(problem, layout, task / layout.bands % layout.strips);
    const int64_t begin = layout.stride * first - layout.halo;
    const bool follows = task > first_task && first > 0;
    forward_band(
        problem, layout, scratch, task / (layout.bands * layout.strips),
        {first, last, begin, begin + (follows ? layout.shared_rows : 0), layout.stride * (last - 1) + 1 + layout.halo});
  }
}

}  // namespace acmix::ACMIX_ISA
