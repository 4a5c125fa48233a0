// The convolution of one cell behind the operator, within a band.
#pragma once

#include "forward/layout.h"
#include "forward/pointwise.h"

namespace acmix::ACMIX_ISA {

template <class T>
struct LastScratch {
  int64_t room;  // cells of whole registers
  PointwiseScratch<T> product;
  T* cells;  // of one channel, or of two

  LastScratch(const Mix& problem, const ForwardLayout<T>& layout, Arena<T>& arena)
      : room(problem.ends.last.outputs ? round_up(layout.band_rows * layout.strip * layout.interleave, lanes<T>) : 0),
        product(problem.ends.last, problem.shape.heads * problem.shape.head_size, room, arena),
        cells(arena.take(2 * room)) {}
};

// The cells of `rows` rows of the operator's output, with its bias and ReLU, in panels. Returns how many.
template <class T>
static int64_t pack_output(const Mix& problem, const ForwardLayout<T>& layout, const LastScratch<T>& scratch,
                           const T* output, int64_t rows, int64_t row_cells) {
  const int64_t terms = scratch.product.terms, together = scratch.product.paired ? 2 : 1, count = rows * row_cells;
  const T* bias = static_cast<const T*>(problem.ends.bias);
  for (int64_t c = 0; c < terms; ++c) {
    for (int64_t j = 0; j < together; ++j) {
      T* line = scratch.cells + j * scratch.room;
      for (int64_t row = 0; row < rows; ++row)
        copy_run(output + row * layout.out_row + (together * c + j) * layout.out_pitch, row_cells,
                 line + row * row_cells);
      clear(line, count, round_up(count, lanes<T>));
    }
    for (Tiles tile(ceil_divide(count, lanes<T>), projected_vectors); tile.first < tile.registers; tile.next())
      for (int64_t i = 0; i < tile.size; ++i) {
        auto load_channel = [&](int64_t j) {
          const Vector<T> values = load(scratch.cells + j * scratch.room + (tile.first + i) * lanes<T>) +
                                   splat(bias ? bias[together * c + j] : T(0));
          return problem.ends.rectified ? rectify<T>(values) : values;
        };
        store(scratch.product.panels + (tile.first * terms + c * tile.size + i) * lanes<T>,
              scratch.product.paired ? pair_channels<T>(0, together, load_channel) : load_channel(0));
      }
  }
  return count;
}

// Find the pixels of the cells of a band of a group of images.
template <class T>
static void find_pixels(const Mix& problem, const ForwardLayout<T>& layout, const Pixels& pixels, int64_t group,
                        const Strip& strip, int64_t first, int64_t last) {
  const int64_t image = group * layout.interleave, members = layout.members(group, problem.shape.batch);
  int64_t cell = 0;
  auto put = [&](const Field& field, int64_t* to, int64_t row, int64_t x, int64_t g) {
    to[cell] = g < members ? (image + g) * field.batch + row * field.row + x * field.column : -1;
  };
  for (int64_t row = first; row < last; ++row)
    for (int64_t x = strip.first; x < strip.last; ++x)
      for (int64_t g = 0; g < layout.interleave; ++g, ++cell) {
        put(problem.output, pixels.output, row, x, g);
        put(problem.ends.last.shortcut, pixels.shortcut, row, x, g);
      }
  for (; cell % lanes<T>; ++cell) pixels.output[cell] = -1;
}

// Of the output rows [first, last), for which `output` holds what the operator gives.
template <class T>
static void finish_band(const Mix& problem, const ForwardLayout<T>& layout, const LastScratch<T>& scratch,
                        const T* output, const Strip& strip, int64_t group, int64_t first, int64_t last) {
  const int64_t cells = pack_output(problem, layout, scratch, output, last - first, strip.size() * layout.interleave);
  find_pixels(problem, layout, scratch.product.pixels, group, strip, first, last);
  multiply_panels<T>(problem.ends.last, scratch.product, cells, 0, problem.ends.last.outputs, problem.output);
}

}  // namespace acmix::ACMIX_ISA
