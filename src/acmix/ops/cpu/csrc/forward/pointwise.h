// Convolutions of one cell, which stand on both sides of the operator in a residual block: products of their weights and
// cells in panels, with bias, a shortcut that is added, and ReLU, written to pixels whose channels are adjacent.
#pragma once

#include "products/product.h"
#include "stage_one/pairs.h"

namespace acmix::ACMIX_ISA {

// Outputs that are computed before they are written: whole tiles, and long runs of a pixel.
constexpr int64_t outputs_together = 288;

// Of each cell, in registers, where its pixel lies in the output and in the shortcut, -1 for none.
struct Pixels {
  int64_t *output, *shortcut;

  Pixels from(int64_t cell) const { return {output + cell, shortcut + cell}; }
};

template <class T>
struct PointwiseScratch {
  bool paired;
  int64_t terms;  // of the sums over channels
  Pixels pixels;
  T *panels, *lines;  // panels: (tile of registers, channel or pair of channels, register)

  // For up to `cells` cells of whole registers.
  PointwiseScratch(const Pointwise& layer, int64_t inputs, int64_t cells, Arena<T>& arena)
      : paired(in_pairs<T> && layer.weight_element == Element::bfloat16), terms(paired ? inputs / 2 : inputs) {
    pixels = {take_integers(arena, cells), take_integers(arena, cells)};
    panels = arena.take(terms * cells);
    lines = arena.take(cells ? outputs_together * projected_vectors * lanes<T> : 0);
  }
};

// A tile of sums, each begun with its output's bias, put into lines of cells.
template <class T, class SumTerm>
struct LineTile {
  using Term = SumTerm;
  const T* bias;
  T* to;
  int64_t pitch;

  Vector<T> begin(int64_t m) const { return splat(bias ? bias[m] : T(0)); }

  template <int outputs, int vectors>
  void finish(const Vector<T> (&sum)[outputs][vectors]) const {
#pragma GCC unroll 8
    for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) store(to + m * pitch + i * lanes<T>, sum[m][i]);
  }
};

// Channels of a register of cells, from lines `pitch` apart; `output` and `shortcut` are of the first of them.
template <class T, class E>
static void write_pixels(bool rectified, const T* lines, int64_t pitch, int64_t channels, const Pixels& pixels,
                         E* output, const E* shortcut) {
  constexpr int count = lanes<T>;
  const int64_t whole = channels / count * count;
  for (int64_t j = 0; j < whole; j += count) {
    Vector<T> block[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) block[i] = load(lines + (j + i) * pitch);
    transpose<T>(block);
    // All loads before the first store: pixels are often a part of 4 KiB apart, in both maps.
    if (shortcut)
#pragma GCC unroll 16
      for (int i = 0; i < count; ++i)
        if (pixels.output[i] >= 0) block[i] += load_wide<T>(shortcut + pixels.shortcut[i] + j);
    if (rectified)
#pragma GCC unroll 16
      for (int i = 0; i < count; ++i) block[i] = rectify<T>(block[i]);
#pragma GCC unroll 16
    for (int i = 0; i < count; ++i) {
      if (pixels.output[i] < 0) continue;
      if constexpr (sizeof(T) == sizeof(E))
        store(reinterpret_cast<T*>(output + pixels.output[i] + j), block[i]);
      else
        store_narrow<T>(output + pixels.output[i] + j, block[i]);
    }
  }
  for (int64_t j = whole; j < channels; ++j)
    for (int i = 0; i < count; ++i) {
      if (pixels.output[i] < 0) continue;
      T sum = lines[j * pitch + i];
      if (shortcut) sum += widen<T>(shortcut[pixels.shortcut[i] + j]);
      output[pixels.output[i] + j] = narrow<E, T>(rectified && sum < 0 ? T(0) : sum);
    }
}

// The outputs [first, last) of cells in panels, by weights of as many terms.
template <class T, class Term, class E>
static void multiply_panels(const Pointwise& layer, const PointwiseScratch<T>& scratch, int64_t cells, int64_t first,
                            int64_t last, E* output) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(E));
  const T *weight = static_cast<const T*>(layer.weight), *bias = static_cast<const T*>(layer.bias);
  const E* shortcut = static_cast<const E*>(layer.shortcut.data);
  for (int64_t begin = first; begin < last; begin += outputs_together) {
    const int64_t end = least(begin + outputs_together, last), size = end - begin;
    for (Tiles tile(ceil_divide(cells, lanes<T>), projected_vectors); tile.first < tile.registers; tile.next()) {
      const int64_t cell = tile.first * lanes<T>, pitch = tile.size * lanes<T>;
      const Pixels pixels = scratch.pixels.from(cell);
      // Pixels lie alone in memory, and hardware does not foresee them: some are asked for with every tile of outputs.
      auto ask_for = [&](int64_t one, int64_t other) {
        for (; one < other; ++one)
          for (int64_t j = begin; pixels.output[one] >= 0 && j < end; j += line) {
            __builtin_prefetch(output + pixels.output[one] + j, 1);
            if (shortcut) __builtin_prefetch(shortcut + pixels.shortcut[one] + j);
          }
      };
      const Terms<T> terms = {scratch.panels + cell * scratch.terms, pitch, weight, 2 * scratch.terms, scratch.terms,
                              scratch.terms};
      for_output_tiles(begin, end, tile.size, [&](int64_t m, int64_t outputs) {
        ask_for((m - begin) * pitch / size, (m + outputs - begin) * pitch / size);
        multiply_tile<T>({&terms, 1, m, 0}, outputs, tile.size,
                         LineTile<T, Term>{bias ? bias + m : nullptr, scratch.lines + (m - begin) * pitch, pitch});
      });
      for (int64_t i = 0; i < pitch; i += lanes<T>)
        write_pixels(layer.rectified, scratch.lines + i, pitch, size, pixels.from(i), output + begin,
                     shortcut ? shortcut + begin : nullptr);
    }
  }
}

// The same, into a map.
template <class T>
static void multiply_panels(const Pointwise& layer, const PointwiseScratch<T>& scratch, int64_t cells, int64_t first,
                            int64_t last, const Field& output) {
  with_elements<T>(output, 0, [&](auto* to) {
    if constexpr (in_pairs<T>)
      if (scratch.paired) return multiply_panels<T, Pairs<T>>(layer, scratch, cells, first, last, to);
    multiply_panels<T, Numbers<T>>(layer, scratch, cells, first, last, to);
  });
}

}  // namespace acmix::ACMIX_ISA
