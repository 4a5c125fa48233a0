// fc and the grouped convolution as one kernel, and the gradients of both: products of small matrices, many channels of
// a kernel side by side.
#pragma once

#include "layout/maps.h"
#include "stage_two/convolve.h"

namespace acmix::ACMIX_ISA {

// Blocks of as many output channels as a register has lanes, so that the taps of a block are whole registers.
template <class T>
struct CompositionScratch {
  int64_t pitch;
  int64_t *rows, *columns, *row_places, *column_places, *registers;  // of fc: offsets by row and by column
  Tap* here;
  T *mixing, *kernel, *composed, *product;

  CompositionScratch(const Composition& weights, Arena<T>& arena) : pitch(lanes<T> * weights.taps) {
    const int64_t positions = weights.positions, maps = weights.maps;
    rows = take_integers(arena, positions);
    columns = take_integers(arena, maps);
    registers = take_integers(arena, weights.taps);
    here = reinterpret_cast<Tap*>(take_integers(arena, 2));
    mixing = arena.take(positions * maps);
    kernel = arena.take(positions * pitch);
    composed = arena.take(maps * pitch);
    product = arena.take(positions * pitch);
    if (!arena.memory) return;
    for (int64_t p = 0; p < positions; ++p) rows[p] = p * maps;
    for (int64_t c = 0; c < maps; ++c) columns[c] = c;
    for (int64_t t = 0; t < weights.taps; ++t) registers[t] = t * lanes<T>;
    here[0] = {0, 0};
    const T* fc = static_cast<const T*>(weights.mixing);
    for (int64_t i = 0; i < positions * maps; ++i) mixing[i] = static_cast<T>(weights.rate) * fc[i];
  }
};

// Weights (channel, plane, tap) in memory, the last two axes in either order.
template <class T>
struct Taps {
  T* data;
  int64_t planes, taps, plane, tap;

  T* at(int64_t c, int64_t p) const { return data + c * planes * taps + p * plane; }
};

// Channels [first, last) to planes of all of them, zeros up to a full block.
template <class T>
static void spread(const Taps<const T>& from, int64_t first, int64_t last, T* to, int64_t pitch) {
  for (int64_t p = 0; p < from.planes; ++p, to += pitch) {
    T* line = to;
    for (int64_t c = first; c < last; ++c, line += from.taps) {
      if (from.tap == 1)
        copy_run(from.at(c, p), from.taps, line);
      else
        for (int64_t t = 0; t < from.taps; ++t) line[t] = from.at(c, p)[t * from.tap];
    }
    clear(to, (last - first) * from.taps, pitch);
  }
}

// The way back.
template <class T>
static void collect(const T* from, int64_t pitch, int64_t first, int64_t last, const Taps<T>& to) {
  for (int64_t p = 0; p < to.planes; ++p, from += pitch) {
    const T* line = from;
    for (int64_t c = first; c < last; ++c, line += to.taps) {
      if (to.tap == 1)
        copy_run(line, to.taps, to.at(c, p));
      else
        for (int64_t t = 0; t < to.taps; ++t) to.at(c, p)[t * to.tap] = line[t];
    }
  }
}

template <class T>
static inline Taps<T> kernel_taps(const Composition& weights, T* data) {
  return {data, weights.positions, weights.taps, weights.position, weights.tap};
}

template <class T>
static inline Taps<T> composed_taps(const Composition& weights, T* data) {
  return {data, weights.maps, weights.taps, weights.taps, 1};
}

static inline int64_t first_channel(const Composition& weights, int64_t part, int64_t count) {
  return least(weights.channels, ceil_divide(ceil_divide(weights.channels * part, weights.parts), count) * count);
}

// composed[c, j, t] = rate * sum over p of fc[p, j] kernel[c, p, t], for the channels of the parts [first, last).
template <class T>
static void compose(const Composition& weights, void* composed, int64_t first, int64_t last) {
  constexpr int64_t count = lanes<T>;
  Arena<T> arena;
  CompositionScratch<T>(weights, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  const CompositionScratch<T> scratch(weights, arena);
  const int64_t end = first_channel(weights, last, count);
  for (int64_t c = first_channel(weights, first, count); c < end; c += count) {
    const int64_t stop = least(c + count, end);
    spread(kernel_taps(weights, static_cast<const T*>(weights.kernel)), c, stop, scratch.kernel, scratch.pitch);
    convolve<T>({scratch.kernel, scratch.pitch, weights.positions, scratch.registers},
                {scratch.mixing, scratch.columns, scratch.rows, scratch.here, 1},
                {scratch.composed, scratch.pitch, weights.maps, scratch.registers}, weights.taps);
    collect(scratch.composed, scratch.pitch, c, stop, composed_taps(weights, static_cast<T*>(composed)));
  }
}

// Given the gradient of the composed kernel, that of the kernel, and for every part its share of the gradient of
// rate * fc, added to `mixing`.
template <class T>
static void compose_backward(const Composition& weights, const void* gradient, void* kernel, void* mixing,
                             int64_t first, int64_t last) {
  constexpr int64_t count = lanes<T>;
  Arena<T> arena;
  CompositionScratch<T>(weights, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  const CompositionScratch<T> scratch(weights, arena);
  for (int64_t part = first; part < last; ++part) {
    T* share = static_cast<T*>(mixing) + part * weights.positions * weights.maps;
    const int64_t end = first_channel(weights, part + 1, count);
    for (int64_t c = first_channel(weights, part, count); c < end; c += count) {
      const int64_t stop = least(c + count, end);
      spread(kernel_taps(weights, static_cast<const T*>(weights.kernel)), c, stop, scratch.kernel, scratch.pitch);
      spread(composed_taps(weights, static_cast<const T*>(gradient)), c, stop, scratch.composed, scratch.pitch);
      const Planes<const T> composed = {scratch.composed, scratch.pitch, weights.maps, scratch.registers};
      convolve<T>(composed, {scratch.mixing, scratch.rows, scratch.columns, scratch.here, 1},
                  {scratch.product, scratch.pitch, weights.positions, scratch.registers}, weights.taps);
      collect(scratch.product, scratch.pitch, c, stop, kernel_taps(weights, static_cast<T*>(kernel)));
      correlate<T>({scratch.kernel, scratch.pitch, weights.positions, scratch.registers}, composed,
                   {share, scratch.rows, scratch.columns, scratch.here, 1},
                   {weights.taps, weights.taps, weights.taps * count});
    }
  }
}

}  // namespace acmix::ACMIX_ISA
