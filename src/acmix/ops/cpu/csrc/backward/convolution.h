// The convolution path, backward. Where the instruction set multiplies pairs of bfloat16, two heads of the output's
// gradient share a lane on the way to the gradient of the maps; a last head of an odd number stays numbers.
#pragma once

#include "backward/layout.h"
#include "stage_two/convolution.h"

namespace acmix::ACMIX_ISA {

template <class T>
struct PairedOutputs {
  int64_t count, row, size;  // pairs of heads; numbers of a pair of heads in a kernel
  int64_t *places, *pairs;   // of the registers of outputs; of the kernels of each pair
  T *outputs, *kernel;       // (row, channel of a head, pair, column); (pair, map, tap)

  PairedOutputs(const Mix& problem, const BackwardLayout<T>& layout, const ConvolutionScratch<T>& convolution,
                Arena<T>& arena)
      : count(multiplies_pairs<T>(problem) && problem.convolution.kernel ? problem.shape.heads / 2 : 0),
        row(problem.shape.head_size * count * layout.outputs.pitch() + lanes<T>) {
    const int64_t across = layout.out_pitch / lanes<T>, registers = count ? layout.out_rows * across : 0;
    const int64_t maps = problem.convolution.positions ? problem.convolution.positions : 3 * problem.shape.heads;
    size = round_up(maps * convolution.taps + 1, lanes<T>);
    places = take_integers(arena, registers);
    pairs = take_integers(arena, count);
    outputs = take_padded(arena, count ? layout.out_rows * row : 0, layout.margin);
    kernel = arena.take(count * size);
    if (!arena.memory) return;
    for (int64_t i = 0; i < registers; ++i) places[i] = i / across * row + i % across * lanes<T>;
    for (int64_t p = 0; p < count; ++p) pairs[p] = p * size;
  }

  // `rows` rows of all channels, with their halo.
  void pair_outputs(const Mix& problem, const BackwardLayout<T>& layout, const T* from, int64_t rows) const {
    const int64_t heads = problem.shape.heads, pitch = layout.outputs.pitch(), reach = layout.reach;
    for (int64_t y = 0; y < rows; ++y) {
      T* to = outputs + y * row - reach;
      for (int64_t d = 0; d < problem.shape.head_size; ++d)
        for (int64_t p = 0; p < count; ++p, to += pitch) {
          const T* first = from + y * layout.out_row + (d * heads + 2 * p) * pitch - reach;
          for (int64_t x = 0; x < pitch; x += lanes<T>)
            store(to + x, join_pairs(load(first + x), load(first + pitch + x)));
        }
      // Taps of the last registers read on: what lies between rows must be numbers.
      store(to, Vector<T>{});
    }
    // The halo of what lies behind the last row.
    clear(outputs + rows * row, -reach - lanes<T>, layout.margin + lanes<T>);
  }

  // The kernel of one channel, from weights of numbers.
  void pair_kernel(const Weights<const T>& weights, int64_t inputs) const {
    const int64_t used = weights.inputs[inputs - 1] + weights.tap_count;
    alignas(vector_bytes) T rows[2][lanes<T>] = {};
    for (int64_t p = 0; p < count; ++p) {
      const T *first = weights.data + weights.outputs[2 * p], *second = weights.data + weights.outputs[2 * p + 1];
      T* to = kernel + pairs[p];
      int64_t x = 0;
      for (; x + lanes<T> <= used; x += lanes<T>) store(to + x, join_pairs(load(first + x), load(second + x)));
      copy_run(first + x, used - x, rows[0]);
      copy_run(second + x, used - x, rows[1]);
      store(to + x, join_pairs(load(rows[0]), load(rows[1])));
    }
  }
};

// Gradients of the tapped maps of one channel on the band's own rows, by the taps that each phase of rows and columns
// is read with; of outputs `out_row` from row to row, as many as tables of `kernel` have.
template <class T, class Term>
static void transpose_taps(const Mix& problem, const BackwardLayout<T>& layout,
                           const ConvolutionScratch<T>& convolution, Tap* taps, int64_t own_rows,
                           const Planes<const T>& outputs, int64_t out_row, const Weights<const T>& kernel, T* to,
                           bool add) {
  const int64_t stride = layout.stride, size = problem.convolution.kernel_size;
  for (int64_t down = 0; down < least(stride, own_rows); ++down)
    for (int64_t across = 0; across < stride; ++across) {
      int64_t count = 0;
      for (int64_t t = convolution.taps - 1; t >= 0; --t) {
        const int64_t row = down + layout.padding - t / size, column = across + layout.padding - t % size;
        if (row % stride || column % stride) continue;
        taps[count++] = {row / stride * out_row + column / stride * layout.interleave, t};
      }
      const int64_t rows = ceil_divide(own_rows - down, stride);
      convolve_maps<T, Term>(outputs, out_row, {kernel.data, kernel.inputs, kernel.outputs, taps, count},
                             {to + down * convolution.row + across * layout.columns.phase_pitch, convolution.plane,
                              convolution.count, convolution.narrow, add},
                             convolution.row, stride, rows, convolution.narrow_registers, convolution.packed);
    }
}

}  // namespace acmix::ACMIX_ISA
