// The convolution path on maps in scratch: of every channel d, 3 N maps through k x k taps to N maps, either by one
// kernel of 3 N inputs or through P mixtures.
#pragma once

#include "layout/maps.h"
#include "stage_two/convolve.h"

namespace acmix::ACMIX_ISA {

// What the taps of one pass read, and the tables of its weights.
template <class T>
struct ConvolutionScratch {
  int64_t row, plane, count, taps;  // the tapped maps, which are q, k and v or their mixtures
  int64_t *outputs, *inputs, *mixed_outputs, *mixed_inputs, *wide, *mixed_wide, *narrow;
  Tap *tap, *here;
  T *packed, *mixed;
  int64_t wide_registers, narrow_registers;  // of one row of maps, of outputs

  ConvolutionScratch(const Mix& problem, const MapLayout<T>& layout, int64_t rows, Arena<T>& arena) {
    const Convolution& convolution = problem.convolution;
    constexpr int64_t lane_count = lanes<T>;
    const int64_t heads = problem.shape.heads, positions = convolution.positions;
    taps = convolution.kernel_size * convolution.kernel_size;
    count = positions ? positions : 3 * layout.heads;
    row = positions ? positions * layout.pitch : layout.row;
    plane = positions ? layout.pitch : problem.shape.head_size * layout.pitch;
    wide_registers = layout.pitch / lane_count;
    narrow_registers = layout.out_pitch / lane_count;
    outputs = take_integers(arena, heads);
    inputs = take_integers(arena, count);
    mixed_outputs = take_integers(arena, positions);
    mixed_inputs = take_integers(arena, positions ? 3 * heads : 0);
    wide = take_integers(arena, positions ? rows * wide_registers : 0);
    mixed_wide = take_integers(arena, positions ? rows * wide_registers : 0);
    narrow = take_integers(arena, rows * narrow_registers);
    tap = reinterpret_cast<Tap*>(take_integers(arena, 2 * taps));
    here = reinterpret_cast<Tap*>(take_integers(arena, 2));
    packed = arena.take(taps * most(count, heads) * convolved_outputs);
    mixed = take_padded(arena, positions ? rows * row : 0, layout.margin);
    if (!arena.memory) return;
    const int64_t total = positions ? positions : 3 * heads;
    for (int64_t m = 0; m < heads; ++m) outputs[m] = m * total * taps;
    for (int64_t c = 0; c < count; ++c)
      inputs[c] = (positions ? c : c / layout.heads * heads + c % layout.heads) * taps;
    for (int64_t p = 0; p < positions; ++p) mixed_outputs[p] = p * 3 * heads;
    for (int64_t c = 0; positions && c < 3 * heads; ++c) mixed_inputs[c] = c;
    for (int64_t i = 0; positions && i < rows * wide_registers; ++i) {
      wide[i] = i / wide_registers * layout.row + i % wide_registers * lane_count;
      mixed_wide[i] = i / wide_registers * row + i % wide_registers * lane_count;
    }
    for (int64_t i = 0; i < rows * narrow_registers; ++i)
      narrow[i] = i / narrow_registers * layout.stride * row + i % narrow_registers * lane_count;
    const int64_t size = convolution.kernel_size;
    for (int64_t t = 0; t < taps; ++t)
      tap[t] = {(t / size - layout.padding) * row + layout.columns.slot(t % size - layout.padding), t};
    here[0] = {0, 0};
  }

  // Weights of channel d of the heads from `head` on in a tensor of the kernel's shape.
  template <class W>
  Weights<W> kernel(W* data, const Mix& problem, int64_t head, int64_t d) const {
    const int64_t heads = problem.shape.heads, total = problem.convolution.positions ? count : 3 * heads;
    return {data + (d * heads * total + head) * taps, outputs, inputs, tap, taps};
  }
  template <class W>
  Weights<W> mixing(W* data) const {
    return {data, mixed_outputs, mixed_inputs, here, 1};
  }
  // Mixtures of one channel with the halo on their left.
  Planes<T> mixtures(const MapLayout<T>& layout) const {
    return {mixed - layout.reach, layout.pitch, count, mixed_wide};
  }
};

// Behind `rows` rows of mixtures, where taps of the last registers read on.
template <class T>
static void end_mixtures(const MapLayout<T>& layout, const ConvolutionScratch<T>& scratch, int64_t rows) {
  clear(scratch.mixed, rows * scratch.row - layout.reach, rows * scratch.row + layout.margin);
}

// The tapped maps of channel d: rows of scratch as they are, or `rows` rows of their mixtures.
template <class T>
static const T* tapped_maps(const Mix& problem, const MapLayout<T>& layout, const ConvolutionScratch<T>& scratch,
                            const T* maps, int64_t d, int64_t rows) {
  maps += d * layout.pitch;
  if (!problem.convolution.positions) return maps;
  // With the halo on its left, without that of the next line.
  convolve<T>({maps - layout.reach, problem.shape.head_size * layout.pitch, 3 * problem.shape.heads, scratch.wide},
              scratch.mixing(static_cast<const T*>(problem.convolution.mixing)), scratch.mixtures(layout),
              rows * scratch.wide_registers);
  end_mixtures(layout, scratch, rows);
  return scratch.mixed;
}

// convolve for `rows` rows of registers `across`; taps read whole rows around each, stride 1 where they are 3x3.
template <class T, class Term = Numbers<T>>
static void convolve_maps(const Planes<const T>& in, int64_t in_row, const Weights<const T>& weights,
                          const Planes<T>& out, int64_t out_row, int64_t stride, int64_t rows, int64_t across,
                          T* packed) {
  if constexpr (convolved_rows > 1)
    if (stride == 1 && weights.tap_count == 9)
      return convolve_rows<T, Term>(in, in_row, weights, out, out_row, rows, across, packed);
  convolve<T, Term>(in, weights, out, rows * across);
}

}  // namespace acmix::ACMIX_ISA
