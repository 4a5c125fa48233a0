// Stage I within a band, backward: what the gradients of one pass of its projections, at its own pixels, give to those
// of the input, of the weights and of the bias. Neither projections nor their gradients leave scratch. Here by products
// of vectors.
#pragma once

#include "backward/pairs.h"

namespace acmix::ACMIX_ISA {

// Tiles of packed input that are summed over at once, twice as many in pairs: what they are multiplied with stays in
// the first-level cache.
constexpr int64_t most_runs = 2;

// A tile of sums added to rows `step` apart, or put there.
template <class T, class SumTerm>
struct AddedTile {
  using Term = SumTerm;
  T* to;
  int64_t step;
  bool add;

  Vector<T> begin(int64_t) const { return Vector<T>{}; }

  template <int outputs, int vectors>
  void finish(const Vector<T> (&sum)[outputs][vectors]) const {
#pragma GCC unroll 8
    for (int m = 0; m < outputs; ++m)
#pragma GCC unroll 8
      for (int i = 0; i < vectors; ++i) {
        T* place = to + m * step + i * lanes<T>;
        store(place, add ? load(place) + sum[m][i] : sum[m][i]);
      }
  }
};

// The band's own pixels among those that are packed.
struct OwnPixels {
  int64_t first, count, registers;  // all registers that are packed
};

// Where a pass adds, or puts, its gradient: its share of the weights', if they want one, and the input's in scratch.
template <class T>
struct PassGradient {
  int64_t pass;
  T* weights;
  bool add_weights, wants_input, add_input;
};

// The 3 `channels` projections of a pass are in the order (query or key or value, channel); pixels in that of the
// packed input.
template <class T>
struct VectorProjectionGradient {
  int64_t projections, width;  // of a pass; inputs; both in whole registers
  bool paired;
  T *line, *gradient, *input;  // (input, cell of a row); (pixel, projection or input)
  T* pixels;                   // paired, of the input

  VectorProjectionGradient(const Mix& problem, const BackwardLayout<T>& layout, Arena<T>& arena)
      : projections(pass_projections(layout)),
        width(round_up(problem.projection.inputs, lanes<T>)),
        paired(multiplies_pairs<T>(problem)) {
    const int64_t count = layout.band_rows * layout.pitch;
    line = arena.take(width * layout.pitch);
    gradient = arena.take(width ? (count + 2) * projections : 0);
    input = arena.take(count * width);
    pixels = arena.take(paired ? layout.rows * layout.pitch * count_terms<T>(problem) : 0);
  }

  static int64_t pass_projections(const BackwardLayout<T>& layout) { return round_up(3 * layout.channels, lanes<T>); }
  // Numbers of a pass of the gradients of weights and bias.
  static int64_t pass_share(const BackwardLayout<T>& layout, int64_t inputs) {
    return (inputs + 1) * pass_projections(layout);
  }
  // Numbers of a pass of the weights as differentiate_input reads them: (tile of inputs, projection or pair, input).
  int64_t pass_weights(const BackwardLayout<T>& layout) const { return terms(layout) * width; }
  int64_t terms(const BackwardLayout<T>& layout) const { return ceil_divide(3 * layout.channels, paired ? 2 : 1); }
};

template <class T>
static OwnPixels own_pixels(const Mix& problem, const VectorProjection<T>& packed, const BackwardBand& band) {
  const int64_t begin = most(band.begin, 0), end = least(band.end, problem.shape.height);
  return {(band.first - begin) * packed.cells.row_cells, (band.last - band.first) * packed.cells.row_cells,
          packed.cells.registers(end - begin)};
}

// Call f(pixel, first cell, cells, those before and behind that only neighbouring strips own) for every phase of every
// row of the band; cells of scratch are counted from the strip's own first one.
template <class F>
static inline void for_pixel_runs(const Columns& columns, const Strip& strip, const BackwardBand& band, const F& f) {
  int64_t pixel = 0;
  for (int64_t row = band.first; row < band.last; ++row)
    for (int64_t phase = 0; phase < columns.stride; ++phase) {
      const int64_t before = (strip.first - strip.begin) / columns.stride * columns.interleave;
      const int64_t cells = columns.cells(strip.size(), phase), all = columns.cells(strip.width(), phase);
      f(row, phase, pixel + before, cells, before, all - before - cells);
      pixel += all;
    }
}

// Products of vectors read the weights as they are, or in pairs, so many rows in a part; and for the gradient of the
// input a pass in tiles, behind them.
constexpr int64_t part_rows = 64;

template <class T>
static PackingWork packing_of(const Mix& problem, const BackwardLayout<T>& layout,
                              const VectorProjectionGradient<T>& scratch, bool backward) {
  const int64_t rows = packs_pairs<T>(problem) ? 3 * problem.shape.heads * problem.shape.head_size : 0;
  const PackingWork pairs = {rows * count_terms<T>(problem), ceil_divide(rows, part_rows)};
  if (!backward) return pairs;
  return {pairs.numbers + layout.passes * scratch.pass_weights(layout), pairs.parts + layout.passes};
}

template <class T>
static void pack_part(const Mix& problem, const BackwardLayout<T>& layout, const VectorProjectionGradient<T>& scratch,
                      bool, T* packed, int64_t part) {
  const int64_t inputs = problem.projection.inputs, maps = problem.shape.heads * problem.shape.head_size;
  const PackingWork pairs = packing_of(problem, layout, scratch, false);
  if (part < pairs.parts) return pack_pairs(problem, packed, part * part_rows, least((part + 1) * part_rows, 3 * maps));
  const int64_t pass = part - pairs.parts, known = 3 * layout.channels, step = scratch.paired ? 2 : 1;
  const T* weight = static_cast<const T*>(problem.projection.weight);
  auto row = [&](int64_t m) {
    return weight + (m / layout.channels * maps + pass * layout.channels + m % layout.channels) * inputs;
  };
  T* to = packed + pairs.numbers + pass * scratch.pass_weights(layout);
  for (Tiles tile(scratch.width / lanes<T>, projected_vectors); tile.first < tile.registers; tile.next()) {
    const int64_t first = tile.first * lanes<T>, size = tile.size * lanes<T>, count = least(size, inputs - first);
    for (int64_t m = 0; m < known; m += step, to += size) {
      if constexpr (in_pairs<T>)
        if (scratch.paired) {
          pair_rows(row(m) + first, m + 1 < known ? row(m + 1) + first : nullptr, count, to);
          continue;
        }
      copy_run(row(m) + first, count, to);
      clear(to, count, size);
    }
  }
}

// The gradients of one pass by pixel, from scratch rows; zeros where the strip's neighbours have theirs. And that of
// the bias, if one is wanted.
template <class T>
static void collect_gradient(const BackwardLayout<T>& layout, const VectorProjectionGradient<T>& scratch,
                             const PairedGradient<T>& pairs, const Strip& strip, const BackwardBand& band,
                             const T* from, T* bias, bool add) {
  const int64_t projections = scratch.projections, pitch = layout.pitch, known = 3 * layout.channels;
  if (bias && !add) clear(bias, 0, projections);
  if (scratch.paired) {
    clear(pairs.by_pixel, 0, projections);
    clear(pairs.by_pixel, (pairs.pairs() - 1) * projections, pairs.pairs() * projections);
  }
  auto collect = [&](int64_t row, int64_t phase, int64_t pixel, int64_t cells, int64_t before, int64_t behind) {
    const T* line = from + (row - band.first) * layout.row + phase * layout.columns.phase_pitch;
    auto own = [&](int64_t x) { return x >= 0 && x < cells; };
    auto packed = [&](int64_t x) { return x >= -before && x < cells + behind; };
    const int64_t shift = scratch.paired ? (pairs.lead + pixel - before) % 2 : 0;
    for (int64_t x = -before - shift; x < cells + behind; x += lanes<T>)
      for (int64_t m = 0; m < projections; m += lanes<T>) {
        Vector<T> block[lanes<T>], sum = {};
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) block[l] = m + l < known ? load(line + (m + l) * pitch + x) : Vector<T>{};
        transpose<T>(block);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) {
          if (!own(x + l)) block[l] = Vector<T>{};
          sum += block[l];
        }
        if (bias) store(bias + m, load(bias + m) + sum);
        if constexpr (in_pairs<T>)
          if (scratch.paired) {
            if (x >= 0 && x + lanes<T> <= cells) {
#pragma GCC unroll 8
              for (int l = 0; l < lanes<T>; l += 2)
                put_pixels(pairs, pixel + x + l, m, block[l], block[l + 1], true, true);
              continue;
            }
#pragma GCC unroll 8
            for (int l = 0; l < lanes<T>; l += 2)
              put_pixels(pairs, pixel + x + l, m, block[l], block[l + 1], packed(x + l), packed(x + l + 1));
            continue;
          }
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l)
          if (packed(x + l)) store(scratch.gradient + (pixel + x + l) * projections + m, block[l]);
      }
  };
  for_pixel_runs(layout.columns, strip, band, collect);
}

// The gradients of the weights of one pass, (input, projection), added to what is there, or put there: of the input,
// (tile of registers, input, pixel), and `gradient`, (pixel, projection), of numbers or of pairs of pixels.
template <class T, class Term>
static void differentiate_weights(const Mix& problem, const VectorProjection<T>& packed,
                                  const VectorProjectionGradient<T>& scratch, const OwnPixels& own, const T* input,
                                  const T* gradient, T* to, bool add) {
  const int64_t inputs = problem.projection.inputs, projections = scratch.projections;
  const int64_t together = scratch.paired ? 2 : 1;
  Tiles tile(own.registers, projected_vectors);
  for (int64_t done = 0; done < own.count; add = true) {
    Terms<T> runs[2 * most_runs];
    int64_t count = 0;
    for (; count < together * most_runs && done < own.count; tile.next()) {
      const int64_t first = own.first + done - tile.first * lanes<T>, size = tile.size * lanes<T>;
      if (first >= size) continue;
      const int64_t pixels = least(size - first, own.count - done);
      runs[count++] = {gradient + done / together * projections,
                       projections,
                       input + tile.first * packed.terms * lanes<T> + first / together,
                       2 * size / together,
                       size / together,
                       ceil_divide(pixels, together)};
      done += pixels;
    }
    for (Tiles across(projections / lanes<T>, projected_vectors); across.first < across.registers; across.next())
      for_output_tiles(0, inputs, across.size, [&](int64_t c, int64_t outputs) {
        const int64_t column = across.first * lanes<T>;
        multiply_tile<T>({runs, count, c, column}, outputs, across.size,
                         AddedTile<T, Term>{to + c * projections + column, projections, add});
      });
  }
}

// The share of one pass in the gradient of the input, added to what is there, or put there: of `gradient`, (pixel,
// projection or pair of projections).
template <class T, class Term>
static void differentiate_input(const Mix& problem, const BackwardLayout<T>& layout,
                                const VectorProjectionGradient<T>& scratch, const OwnPixels& own, const T* gradient,
                                const PassGradient<T>& to) {
  const int64_t count = scratch.terms(layout), pitch = scratch.projections / (scratch.paired ? 2 : 1);
  const T* weights = static_cast<const T*>(problem.projection.packed) +
                     packing_of(problem, layout, scratch, false).numbers + to.pass * scratch.pass_weights(layout);
  for (Tiles tile(scratch.width / lanes<T>, projected_vectors); tile.first < tile.registers; tile.next()) {
    const int64_t column = tile.first * lanes<T>;
    const Terms<T> terms = {weights + column * count, tile.size * lanes<T>, gradient, 2 * pitch, pitch, count};
    for_output_tiles(0, own.count, tile.size, [&](int64_t pixel, int64_t outputs) {
      multiply_tile<T>({&terms, 1, pixel, 0}, outputs, tile.size,
                       AddedTile<T, Term>{scratch.input + pixel * scratch.width + column, scratch.width, to.add_input});
    });
  }
}

// From the gradients of one pass to its share of that of the weights, and to that of the input. The first pass of a
// task puts the latter.
template <class T>
static void differentiate_pass(const Mix& problem, const BackwardLayout<T>& layout, const Strip& strip,
                               const VectorProjection<T>& packed, const VectorProjectionGradient<T>& scratch,
                               const BackwardBand& band, const T* gradient, const PassGradient<T>& to) {
  const OwnPixels own = own_pixels(problem, packed, band);
  const PairedGradient<T> pairs(scratch.gradient, scratch.projections, own.first, own.count);
  T* bias = to.weights ? to.weights + problem.projection.inputs * scratch.projections : nullptr;
  collect_gradient(layout, scratch, pairs, strip, band, gradient, bias, to.add_weights);
  if constexpr (in_pairs<T>)
    if (scratch.paired) {
      if (to.weights && !to.add_input) pair_pixels(packed, own.registers, scratch.pixels);
      const OwnPixels whole = {own.first - pairs.lead, own.count + pairs.lead, own.registers};
      if (to.weights)
        differentiate_weights<T, Pairs<T>>(problem, packed, scratch, whole, scratch.pixels, pairs.by_pixel, to.weights,
                                           to.add_weights);
      if (to.wants_input)
        differentiate_input<T, Pairs<T>>(problem, layout, scratch, own, reinterpret_cast<const T*>(pairs.by_projection),
                                         to);
      return;
    }
  if (to.weights)
    differentiate_weights<T, Numbers<T>>(problem, packed, scratch, own, packed.panels, scratch.gradient, to.weights,
                                         to.add_weights);
  if (to.wants_input) differentiate_input<T, Numbers<T>>(problem, layout, scratch, own, scratch.gradient, to);
}

// Write the gradient of the input at the band's own pixels.
template <class T>
static void unpack_input(const Mix& problem, const Field& to, const BackwardLayout<T>& layout,
                         const MapScratch<T>& maps, const VectorProjection<T>&,
                         const VectorProjectionGradient<T>& scratch, int64_t group, const BackwardBand& band) {
  const Columns& columns = layout.columns;
  const Strip& strip = maps.inputs;
  const int64_t inputs = problem.projection.inputs, width = scratch.width, stride = columns.stride;
  const int64_t members = layout.members(group, problem.shape.batch), image = group * layout.interleave * to.batch;
  for_pixel_runs(columns, strip, band, [&](int64_t row, int64_t phase, int64_t pixel, int64_t cells, int64_t, int64_t) {
    const T* from = scratch.input + pixel * width;
    if (to.inner == 1) {
      with_elements<T>(to, image + row * to.row + (strip.first + phase) * to.column, [&](auto* pixels) {
        for (int64_t x = 0; x < cells; ++x, from += width)
          if (x % columns.interleave < members)
            store_run(from, inputs,
                      pixels + x % columns.interleave * to.batch + x / columns.interleave * stride * to.column);
      });
      return;
    }
    for (int64_t x = 0; x < cells; x += lanes<T>)
      for (int64_t c = 0; c < width; c += lanes<T>) {
        Vector<T> block[lanes<T>];
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l) block[l] = x + l < cells ? load(from + (x + l) * width + c) : Vector<T>{};
        transpose<T>(block);
#pragma GCC unroll 16
        for (int l = 0; l < lanes<T>; ++l)
          store(scratch.line + (c + l) * layout.pitch + phase * columns.phase_pitch + x, block[l]);
      }
    if (phase == stride - 1) unpack_row(columns, maps, scratch.line, to, image + row * to.row, inputs, strip, members);
  });
}

// Of the gradients of weight and bias, the registers [first, last) of the projections of all passes: the sum of the
// shares of all slices, transposed back.
template <class T>
static void sum_shares(const Mix& problem, const BackwardLayout<T>& layout, const VectorProjectionGradient<T>& scratch,
                       const T* shares, T* weight, T* bias, int64_t first, int64_t last) {
  const int64_t inputs = problem.projection.inputs, known = 3 * layout.channels;
  const int64_t maps = problem.shape.heads * problem.shape.head_size, projections = scratch.projections;
  const int64_t rows = inputs + 1;
  for (int64_t column = first * lanes<T>; column < last * lanes<T>; column += lanes<T>) {
    const int64_t pass = column / projections, place = column % projections;
    auto sum = [&](int64_t row) {
      const T* from = shares + (pass * rows + row) * projections + place;
      Vector<T> total = load(from);
      for (int64_t slice = 1; slice < layout.slices; ++slice)
        total += load(from + slice * layout.passes * rows * projections);
      return total;
    };
    auto output = [&](int64_t m) { return m / layout.channels * maps + pass * layout.channels + m % layout.channels; };
    for (int64_t c = 0; c < inputs; c += lanes<T>) {
      Vector<T> block[lanes<T>];
      for (int l = 0; l < lanes<T>; ++l) block[l] = c + l < inputs ? sum(c + l) : Vector<T>{};
      transpose<T>(block);
      alignas(vector_bytes) T line[lanes<T>];
      for (int l = 0; l < lanes<T> && place + l < known; ++l) {
        store(line, block[l]);
        copy_run(line, least(lanes<T>, inputs - c), weight + output(place + l) * inputs + c);
      }
    }
    if (!bias) continue;
    alignas(vector_bytes) T line[lanes<T>];
    store(line, sum(inputs));
    for (int64_t l = 0; l < lanes<T> && place + l < known; ++l) bias[output(place + l)] = line[l];
  }
}

}  // namespace acmix::ACMIX_ISA
