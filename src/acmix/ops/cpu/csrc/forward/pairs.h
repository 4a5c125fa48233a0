// What the forward pass multiplies in pairs of bfloat16: neighbouring channels of queries and keys, neighbouring cells
// of values, and for the convolution path two maps at one cell.
#pragma once

#include "forward/layout.h"
#include "stage_two/convolution.h"

namespace acmix::ACMIX_ISA {

// Maps 2 p and 2 p + 1 of a channel as pairs, and a kernel that meets them; a last map of an odd number stays numbers.
template <class T>
struct PairedConvolution {
  int64_t count, row, taps;
  int64_t *outputs, *inputs, *narrow;
  Tap* tap;
  T *numbers, *kernel, *packed, *maps;  // numbers: of two inputs

  PairedConvolution(const Mix& problem, const ForwardLayout<T>& layout, Arena<T>& arena)
      : count(layout.convolves_pairs ? 3 * layout.heads / 2 : 0),
        row(count * layout.pitch),
        taps(problem.convolution.kernel_size * problem.convolution.kernel_size) {
    const int64_t heads = problem.shape.heads, size = problem.convolution.kernel_size;
    const int64_t across = layout.out_pitch / lanes<T>, registers = count ? layout.rows * across : 0;
    outputs = take_integers(arena, count ? heads : 0);
    inputs = take_integers(arena, count);
    narrow = take_integers(arena, registers);
    tap = reinterpret_cast<Tap*>(take_integers(arena, count ? 2 * taps : 0));
    numbers = arena.take(count ? 2 * heads * taps + lanes<T> : 0);
    kernel = arena.take(count ? count * heads * taps + lanes<T> : 0);
    packed = arena.take(count * taps * tile_outputs);
    maps = take_padded(arena, layout.rows * row, layout.margin);
    if (!arena.memory) return;
    for (int64_t m = 0; count && m < heads; ++m) outputs[m] = m * taps;
    for (int64_t c = 0; c < count; ++c) inputs[c] = c * heads * taps;
    for (int64_t i = 0; i < registers; ++i) narrow[i] = i / across * layout.stride * row + i % across * lanes<T>;
    for (int64_t t = 0; count && t < taps; ++t)
      tap[t] = {(t / size - layout.padding) * row + layout.columns.slot(t % size - layout.padding), t};
  }

  Weights<const T> weights() const { return {kernel, outputs, inputs, tap, taps}; }

  // The kernel of one channel, from weights of numbers.
  void pair_kernel(const Weights<const T>& weights, int64_t heads) const {
    const int64_t size = heads * taps;
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t i = 0; i < 2 * heads; ++i)
        copy_run(weights.data + weights.outputs[i % heads] + weights.inputs[2 * c + i / heads], taps,
                 numbers + i * taps);
      for (int64_t x = 0; x < size; x += lanes<T>)
        store(kernel + c * size + x, join_pairs(load(numbers + x), load(numbers + size + x)));
    }
  }

  // The maps of one channel, `plane` apart, in `rows` rows from `from` on, with the halo on their left.
  void pair_maps(const ForwardLayout<T>& layout, const T* from, int64_t plane, int64_t rows) const {
    T* to = maps - layout.reach;
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t c = 0; c < count; ++c, to += layout.pitch) {
        const T* first = from + y * layout.row + 2 * c * plane - layout.reach;
        for (int64_t x = 0; x < layout.pitch; x += lanes<T>)
          store(to + x, join_pairs(load(first + x), load(first + plane + x)));
      }
    // Taps of the last registers read on behind the last row.
    clear(to, 0, layout.reach + layout.margin);
  }
};

// The cells [first, last) of neighbouring channels; the last one of an odd number is beside zeros.
template <class T>
static void pair_lines(const MapLayout<T>& layout, const T* from, int64_t channels, int64_t first, int64_t last,
                       T* to) {
  const Vector<T> nothing = {};
  for (int64_t d = 0; d < channels; d += 2, from += 2 * layout.pitch, to += layout.pitch)
    for (int64_t x = first; x < last; x += lanes<T>)
      store(to + x, join_pairs(load(from + x), d + 1 < channels ? load(from + layout.pitch + x) : nothing));
}

// Behind the maps of a pass: queries and keys of the head in place `place`, as pairs of channels, and its values, each
// with that of the next cell.
template <class T>
static void pair_head(const Mix& problem, const ForwardLayout<T>& layout, T* rows, int64_t place,
                      const ForwardBand& band) {
  const int64_t head_size = problem.shape.head_size, pitch = layout.pitch, reach = layout.reach;
  const T* maps = rows + place * head_size * pitch;
  T *pairs = rows + layout.pairs_of(place), *values = rows + layout.paired_values_of(place);
  for (int64_t y = band.first; y < band.last; ++y) {
    const int64_t row = (layout.stride * y - band.begin) * layout.row;
    pair_lines(layout, maps + row, head_size, 0, layout.out_pitch, pairs + row);
  }
  const int64_t last = least(problem.shape.height, band.end) - band.begin, plane = layout.channels * pitch;
  for (int64_t row = most(0, -band.begin) * layout.row; row < last * layout.row; row += layout.row) {
    pair_lines(layout, maps + row + plane, head_size, -reach, pitch - reach, pairs + row + layout.pairs * pitch);
    const T* value = maps + row + 2 * plane - reach;
    for (int64_t x = 0; x < head_size * pitch; x += lanes<T>)
      store(values + row - reach + x, join_pairs(load(value + x), load(value + layout.interleave + x)));
  }
}

}  // namespace acmix::ACMIX_ISA
