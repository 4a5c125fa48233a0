// What the forward pass multiplies in pairs of bfloat16: for the convolution path two maps at one cell, as they lie in
// scratch, neighbouring channels of queries and keys, and neighbouring cells of values.
#pragma once

#include "forward/layout.h"
#include "stage_two/convolution.h"

namespace acmix::ACMIX_ISA {

// Weights that the pairs of maps of a pass meet, of what reads them: the kernel, or fc.
template <class T>
struct PairedWeights {
  int64_t count, taps;  // pairs of maps
  int64_t *outputs, *inputs;
  T *numbers, *joined;  // numbers: of two inputs

  PairedWeights(const Mix& problem, const ForwardLayout<T>& layout, const ConvolutionScratch<T>& convolution,
                Arena<T>& arena)
      : count(layout.paired && problem.convolution.kernel ? 3 * layout.heads / 2 : 0),
        taps(problem.convolution.positions ? 1 : convolution.taps) {
    const int64_t most_outputs = problem.convolution.positions ? problem.convolution.positions : problem.shape.heads;
    const int64_t size = count ? most_outputs * taps : 0;
    outputs = take_integers(arena, count ? most_outputs : 0);
    inputs = take_integers(arena, count);
    numbers = arena.take(2 * size + lanes<T>);
    joined = arena.take(count * size + lanes<T>);
    if (!arena.memory) return;
    for (int64_t m = 0; count && m < most_outputs; ++m) outputs[m] = m * taps;
    for (int64_t c = 0; c < count; ++c) inputs[c] = c * size;
  }

  // From those of numbers, which have as many taps.
  Weights<const T> join(const Weights<const T>& weights, int64_t output_count) const {
    const int64_t size = output_count * taps;
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t i = 0; i < 2 * output_count; ++i)
        copy_run(weights.data + weights.outputs[i % output_count] + weights.inputs[2 * c + i / output_count], taps,
                 numbers + i * taps);
      for (int64_t x = 0; x < size; x += lanes<T>)
        store(joined + c * size + x, join_pairs(load(numbers + x), load(numbers + size + x)));
    }
    return {joined, outputs, inputs, weights.taps, taps};
  }
};

// convolve_maps of channel d of the maps of a pass: `maps` is where the first one's lie, `places` their registers.
template <class T>
static void convolve_pairs(const MapLayout<T>& layout, const PairedWeights<T>& pairs, const T* maps,
                           const int64_t* places, int64_t d, const Weights<const T>& weights, Planes<T> out,
                           int64_t out_row, int64_t rows, int64_t across, T* packed) {
  const int64_t plane = layout.channels / layout.heads * layout.pitch, paired = 2 * pairs.count;
  convolve_maps<T, Pairs<T>>({maps + d * layout.pitch, plane, pairs.count, places}, layout.row,
                             pairs.join(weights, out.count), out, out_row, layout.stride, rows, across, packed);
  if (paired == 3 * layout.heads) return;
  const MapHalf last = layout.line_of(paired, d);
  out.add = true;
  const auto add_half = last.half ? convolve_maps<T, SecondOfPairs<T>> : convolve_maps<T, FirstOfPairs<T>>;
  add_half({maps + last.line * layout.pitch, plane, 1, places}, layout.row,
           {weights.data, weights.outputs, weights.inputs + paired, weights.taps, weights.tap_count}, out, out_row,
           layout.stride, rows, across, packed);
}

// tapped_maps of mixtures.
template <class T>
static const T* mix_pairs(const Mix& problem, const MapLayout<T>& layout, const ConvolutionScratch<T>& scratch,
                          const PairedWeights<T>& pairs, const T* maps, int64_t d, int64_t rows) {
  convolve_pairs(layout, pairs, maps - layout.reach, scratch.wide, d,
                 scratch.mixing(static_cast<const T*>(problem.convolution.mixing)), scratch.mixtures(layout), 0, rows,
                 scratch.wide_registers, scratch.packed);
  end_mixtures(layout, scratch, rows);
  return scratch.mixed;
}

// Registers of numbers as pairs.
template <class T>
static void join_run(const T* first, const T* second, int64_t size, T* to) {
  for (int64_t x = 0; x < size; x += lanes<T>) store(to + x, join_pairs(load(first + x), load(second + x)));
}

// One row of the maps of a pass, of numbers, as lines of pairs.
template <class T>
static void pair_maps(const MapLayout<T>& layout, const T* from, T* to) {
  const int64_t size = layout.channels / layout.heads, plane = size * layout.pitch, paired = 3 * layout.heads / 2;
  for (int64_t p = 0; p < paired; ++p)
    join_run(from + 2 * p * plane, from + (2 * p + 1) * plane, plane, to + p * plane);
  if (3 * layout.heads == 2 * paired) return;
  from += 2 * paired * plane, to += paired * plane;
  for (int64_t d = 0; d < size; d += 2, to += layout.pitch) {
    const T* channel = from + d * layout.pitch;
    // The last one of an odd number is beside itself, which nobody reads.
    join_run(channel, d + 1 < size ? channel + layout.pitch : channel, layout.pitch, to);
  }
}

// The cells [first, last) of neighbouring channels of one half of lines; the last one of an odd number is beside zeros.
template <class T>
static void pair_neighbours(const MapLayout<T>& layout, const T* from, int half, int64_t channels, int64_t first,
                            int64_t last, T* to) {
  const Vector<T> nothing = {};
  const JoinHalves<T> join(half);
  for (int64_t d = 0; d < channels; d += 2, from += 2 * layout.pitch, to += layout.pitch)
    for (int64_t x = first; x < last; x += lanes<T>)
      store(to + x, join(load(from + x), d + 1 < channels ? load(from + layout.pitch + x) : nothing));
}

// What attention reads in pairs, of the heads of a pass: of a tile of rows queries, `(head, tile row, pair, column)`,
// and in a ring of rows keys and, each with that of the next cell, values, `(row, head, pairs and channels, column)`.
template <class T>
struct PairedHeads {
  int64_t query_row, head, rows, row;
  T *queries, *ring;

  PairedHeads(const MapLayout<T>& layout, Arena<T>& arena)
      : query_row(layout.pairs * layout.pitch),
        head((layout.pairs + layout.channels / layout.heads) * layout.pitch),
        rows(layout.pairs ? layout.stride * (tile_rows - 1) + layout.window : 0),
        // Rows a multiple of 4 KiB apart would fall into the same sets of the cache.
        row(layout.heads * head + lanes<T>) {
    queries = arena.take(layout.heads * tile_rows * query_row);
    ring = take_padded(arena, rows * row, layout.margin);
    if (!arena.memory) return;
    // Behind the last line of a row registers read, and drop, what must not be denormal numbers.
    for (int64_t end = row; end <= rows * row; end += row) clear(ring, end - lanes<T> - layout.reach, end);
  }

  T* query(int64_t place) const { return queries + place * tile_rows * query_row; }
  T* key(int64_t place) const { return ring + place * head; }
  T* value(int64_t place) const { return key(place) + query_row; }
  // Where row y of keys and values lies.
  int64_t row_of(int64_t y) const { return y % rows * row; }

  // One row of the queries of the head in place `place`.
  void pair_query(const MapLayout<T>& layout, const T* lines, int64_t place, int64_t out_pitch, T* to) const {
    const MapHalf half = layout.line_of(place, 0);
    pair_neighbours(layout, lines + half.line * layout.pitch, half.half, layout.channels / layout.heads, 0, out_pitch,
                    to);
  }

  // Row y of keys and values of every head.
  void pair_row(const MapLayout<T>& layout, const T* lines, int64_t y) const {
    const int64_t head_size = layout.channels / layout.heads, pitch = layout.pitch, reach = layout.reach;
    for (int64_t place = 0; place < layout.heads; ++place) {
      const MapHalf half = layout.line_of(layout.heads + place, 0);
      pair_neighbours(layout, lines + half.line * pitch, half.half, head_size, -reach, pitch - reach,
                      key(place) + row_of(y));
      T* to = value(place) + row_of(y) - reach;
      for (int64_t d = 0; d < head_size; ++d, to += pitch) {
        const MapHalf channel = layout.line_of(2 * layout.heads + place, d);
        const T* from = lines + channel.line * pitch - reach;
        const JoinHalves<T> join(channel.half);
        for (int64_t x = 0; x < pitch; x += lanes<T>)
          store(to + x, join(load(from + x), load(from + layout.interleave + x)));
      }
    }
  }
};

}  // namespace acmix::ACMIX_ISA
