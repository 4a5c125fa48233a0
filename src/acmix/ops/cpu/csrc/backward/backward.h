// Both paths, backward. A task is a band of input rows of a strip of a group of images: projections, read or computed
// again, and the output's gradient are brought into scratch once, a few heads at a time, both paths add to one gradient
// there, and it is written once, or goes on to that of the projections' input and weights.
#pragma once

#include "backward/attention.h"
#include "backward/convolution.h"
#include "backward/stage_one.h"

namespace acmix::ACMIX_ISA {

template <class T>
struct BackwardScratch {
  MapScratch<T> maps;
  ConvolutionScratch<T> convolution;
  PairedOutputs<T> paired;
  AttentionScratch<T> attention;
  ProjectionScratch<T> projection;
  ProjectionGradientScratch<T> projection_gradient;
  int64_t* places;  // of the registers of outputs
  Tap* taps;
  T *outputs, *gradient, *mixed_gradient;

  BackwardScratch(const Mix& problem, const BackwardLayout<T>& layout, Arena<T>& arena)
      : maps(problem, layout, layout.rows, arena),
        convolution(problem, layout, layout.rows, arena),
        paired(problem, layout, convolution, arena),
        attention(problem, layout, arena),
        projection(problem, layout, layout.rows, true, arena),
        projection_gradient(problem, layout, arena) {
    const int64_t across = layout.out_pitch / lanes<T>, registers = layout.out_rows * across;
    const int64_t mixed_size = problem.convolution.positions ? layout.band_rows * convolution.row : 0;
    places = take_integers(arena, registers);
    taps = reinterpret_cast<Tap*>(take_integers(arena, 2 * convolution.taps));
    outputs = take_padded(arena, layout.out_rows * layout.out_row, layout.margin);
    gradient = take_padded(arena, layout.band_rows * layout.row, layout.margin);
    mixed_gradient = take_padded(arena, mixed_size, layout.margin);
    if (!arena.memory) return;
    for (int64_t i = 0; i < registers; ++i) places[i] = i / across * layout.out_row + i % across * lanes<T>;
    // Columns between maps are never written, and multiplied by zero.
    std::memset(mixed_gradient, 0, static_cast<size_t>(mixed_size) * sizeof(T));
  }

  // Make the tables of a strip.
  void aim(const Mix& problem, const BackwardLayout<T>& layout, int64_t strip) {
    if (!maps.aim(problem, layout, strip)) return;
    attention.aim(problem.shape, layout, maps.outputs);
    if (!problem.projection.inputs) return;
    projection.aim(layout, maps.inputs);
    // Projections leave alone what lies between maps: it must be numbers, not what another strip left there.
    clear(maps.maps, 0, layout.rows * layout.row);
  }
};

// Rows of all channels of the output's gradient, zeros beyond it.
template <class T>
static void pack_outputs(const Mix& problem, const BackwardLayout<T>& layout, const BackwardScratch<T>& scratch,
                         int64_t group, const BackwardBand& band) {
  const Shape& shape = problem.shape;
  const Field& field = problem.output;
  const int64_t channels = shape.heads * shape.head_size;
  const Strip& strip = scratch.maps.outputs;
  T* outputs = scratch.outputs + strip.begin - strip.first;
  clear(scratch.outputs - layout.margin, 0, layout.margin);
  for (int64_t row = band.out_begin; row < band.out_end; ++row) {
    T* to = outputs + (row - band.out_begin) * layout.out_row;
    const bool inside = row >= 0 && row < shape.height_out;
    clear(to, inside ? channels * layout.outputs.pitch() : 0, layout.out_row);
    if (inside)
      pack_row(layout.outputs, scratch.maps, field, group * layout.interleave * field.batch + row * field.row, channels,
               strip, layout.members(group, shape.batch), to);
  }
  const int64_t rows = band.out_end - band.out_begin;
  clear(outputs + rows * layout.out_row, 0, layout.margin + lanes<T>);
  if constexpr (in_pairs<T>)
    if (scratch.paired.count) scratch.paired.pair_outputs(problem, layout, scratch.outputs, rows);
}

// Write the gradient of the band's own rows of the heads from `head` on.
template <class T>
static void unpack_gradient(const Mix& problem, const MixGradient& to, const BackwardLayout<T>& layout,
                            const BackwardScratch<T>& scratch, int64_t group, int64_t head, const BackwardBand& band) {
  const Shape& shape = problem.shape;
  const Field* fields[] = {&to.query, &to.key, &to.value};
  for (int64_t row = band.first; row < band.last; ++row)
    for (int64_t part = 0; part < 3; ++part) {
      const T* from = scratch.gradient + (row - band.first) * layout.row + part * layout.channels * layout.pitch;
      for_runs(layout, *fields[part], group * layout.interleave, head, row,
               [&](int64_t channel, int64_t channels, int64_t offset) {
                 unpack_row(layout.columns, scratch.maps, from + channel * layout.pitch, *fields[part], offset,
                            channels, scratch.maps.inputs, layout.members(group, shape.batch));
               });
    }
}

// The convolution path: writes the gradient of the maps of the heads from `head` on, adds to that of the weights.
template <class T>
static void convolve_backward(const Mix& problem, const MixGradient& to, const BackwardLayout<T>& layout,
                              const BackwardScratch<T>& scratch, int64_t slice, int64_t head,
                              const BackwardBand& band) {
  const Shape& shape = problem.shape;
  const ConvolutionScratch<T>& convolution = scratch.convolution;
  const int64_t heads = shape.heads, positions = problem.convolution.positions;
  const int64_t own_rows = band.last - band.first, out_rows = band.own_last - band.own_first;
  const int64_t tapped_rows = own_rows + 2 * layout.padding;
  const Span own_outputs = {out_rows * convolution.narrow_registers, convolution.narrow_registers,
                            scratch.maps.outputs.size() * layout.interleave};
  const T* kernel = static_cast<const T*>(problem.convolution.kernel);
  T* kernel_gradient = static_cast<T*>(to.kernel) +
                       slice * shape.head_size * heads * (positions ? positions : 3 * heads) * convolution.taps;
  const T* own = scratch.maps.maps + (band.first - band.begin) * layout.row;
  for (int64_t d = 0; d < shape.head_size; ++d) {
    const T* tapped = tapped_maps(problem, layout, convolution, own - layout.padding * layout.row, d, tapped_rows);
    const Planes<const T> outputs = {
        scratch.outputs + (band.own_first - band.out_begin) * layout.out_row + d * heads * layout.outputs.pitch(),
        layout.outputs.pitch(), heads, scratch.places};
    correlate<T>(outputs,
                 {tapped + layout.padding * convolution.row, convolution.plane, convolution.count, convolution.narrow},
                 convolution.kernel(kernel_gradient, problem, head, d), own_outputs);
    T* gradient = scratch.gradient + d * layout.pitch;
    T* tapped_gradient = positions ? scratch.mixed_gradient : gradient;
    const Weights<const T> weights = convolution.kernel(kernel, problem, head, d);
    const PairedOutputs<T>& paired = scratch.paired;
    if constexpr (in_pairs<T>)
      if (paired.count) {
        paired.pair_kernel(weights, convolution.count);
        const T* pairs =
            paired.outputs + (band.own_first - band.out_begin) * paired.row + d * paired.count * layout.outputs.pitch();
        transpose_taps<T, Pairs<T>>(
            problem, layout, convolution, scratch.taps, own_rows,
            {pairs, layout.outputs.pitch(), paired.count, paired.places}, paired.row,
            {paired.kernel, paired.pairs, convolution.inputs, convolution.tap, convolution.taps}, tapped_gradient,
            false);
      }
    const int64_t alone = heads - 2 * paired.count;
    if (alone)
      transpose_taps<T, Numbers<T>>(
          problem, layout, convolution, scratch.taps, own_rows,
          {outputs.data + 2 * paired.count * outputs.plane, outputs.plane, alone, outputs.places}, layout.out_row,
          {weights.data, weights.outputs + 2 * paired.count, weights.inputs, weights.taps, weights.tap_count},
          tapped_gradient, paired.count > 0);
    if (!positions) continue;
    const Planes<const T> mixed = {scratch.mixed_gradient, layout.pitch, positions, convolution.mixed_wide};
    const int64_t plane = shape.head_size * layout.pitch, registers = own_rows * convolution.wide_registers;
    const Weights<const T> mixing = convolution.mixing(static_cast<const T*>(problem.convolution.mixing));
    convolve<T>(mixed, {mixing.data, mixing.inputs, mixing.outputs, mixing.taps, 1},
                {gradient, plane, 3 * heads, convolution.wide}, registers);
    correlate<T>(mixed, {own + d * layout.pitch, plane, 3 * heads, convolution.wide},
                 convolution.mixing(static_cast<T*>(to.mixing) + slice * positions * 3 * heads),
                 {registers, registers, registers * lanes<T>});
  }
}

// The maps of the heads from `head` on: from memory or from packed input.
template <class T>
static void bring_rows(const Mix& problem, const BackwardLayout<T>& layout, const BackwardScratch<T>& scratch,
                       int64_t group, int64_t head, const BackwardBand& band) {
  if (!problem.projection.inputs)
    return pack_rows(problem, layout, scratch.maps, group, head,
                     {band.begin, band.begin, band.end, band.first - layout.halo, band.last + layout.halo});
  const int64_t first = most(band.begin, 0), last = least(band.end, problem.shape.height);
  clear_rows(problem, layout, scratch.maps, {band.begin, band.begin, band.end, band.begin, band.end});
  project_rows(problem, layout, scratch.projection, head, last - first,
               row_of(layout, scratch.maps, first - band.begin));
}

// Both paths for the heads from `head` on; returns the sum of d loss / d rate.
template <class T>
static Vector<T> backward_pass(const Mix& problem, const MixGradient& to, const BackwardLayout<T>& layout,
                               const BackwardScratch<T>& scratch, int64_t slice, int64_t group, int64_t head,
                               const BackwardBand& band) {
  const Shape& shape = problem.shape;
  bring_rows(problem, layout, scratch, group, head, band);
  // Attention adds to columns that are not the strip's own, too.
  if (!problem.convolution.kernel || layout.strips > 1)
    clear(scratch.gradient, -layout.margin, (band.last - band.first) * layout.row);
  if (problem.convolution.kernel) convolve_backward(problem, to, layout, scratch, slice, head, band);
  Vector<T> rate_gradient = {};
  if (layout.window) {
    reflect_columns(layout, scratch.maps, most(0, -band.begin), least(shape.height, band.end) - band.begin);
    const int64_t plane = layout.channels * layout.pitch;
    for (int64_t place = 0; place < layout.heads; ++place) {
      const int64_t offset = place * shape.head_size * layout.pitch;
      const T *query = scratch.maps.maps + offset,
              *outputs = scratch.outputs + (head + place) * shape.head_size * layout.outputs.pitch();
      T* gradient = scratch.gradient + offset;
      const HeadMaps<T> maps = {query,    query + plane,    query + 2 * plane,   outputs,
                                gradient, gradient + plane, gradient + 2 * plane};
      rate_gradient += backward_head(problem, layout, scratch.attention, scratch.maps.locations, band, maps);
    }
  }
  return rate_gradient;
}

template <class T>
static BackwardWork backward_work(const Mix& problem) {
  using Gradient = ProjectionGradientScratch<T>;
  const BackwardLayout<T> layout(problem);
  return {layout.slices * layout.parts, layout.slices, layout.parts,
          layout.passes * Gradient::pass_share(layout, problem.projection.inputs),
          layout.passes * Gradient::pass_projections(layout) / lanes<T>};
}

// An item is a part of the passes of a slice of tasks, whose weight gradients it sums in order.
template <class T>
static void backward(const Mix& problem, const MixGradient& to, int64_t first_item, int64_t last_item) {
  const Shape& shape = problem.shape;
  const BackwardLayout<T> layout(problem);
  Arena<T> arena;
  BackwardScratch<T>(problem, layout, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  BackwardScratch<T> scratch(problem, layout, arena);
  [[maybe_unused]] const ProductState state;
  const int64_t tasks = layout.tasks, passes = layout.passes / layout.parts;
  const size_t sums = static_cast<size_t>(2 * shape.head_size * lanes<T>);
  const bool projected = problem.projection.inputs > 0;
  const int64_t share = ProjectionGradientScratch<T>::pass_share(layout, problem.projection.inputs);
  int64_t packed = -1;
  for (int64_t item = first_item; item < last_item; ++item) {
    const int64_t slice = item / layout.parts, part = item % layout.parts, first_pass = part * passes;
    const int64_t begin = slice * tasks / layout.slices, end = (slice + 1) * tasks / layout.slices;
    Vector<T> rate_gradient[1] = {};
    std::memset(scratch.attention.position_sums, 0, sums * sizeof(T));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t group = task / (layout.bands * layout.strips);
      const BackwardBand band = layout.band(shape, task % layout.bands);
      scratch.aim(problem, layout, task / layout.bands % layout.strips);
      if (task != packed) {
        pack_outputs(problem, layout, scratch, group, band);
        if (projected)
          pack_input(problem, layout, scratch.maps, scratch.projection, group, most(band.begin, 0),
                     least(band.end, shape.height));
      }
      packed = task;
      for (int64_t pass = first_pass; pass < first_pass + passes; ++pass) {
        const int64_t head = pass * layout.heads;
        rate_gradient[0] += backward_pass(problem, to, layout, scratch, slice, group, head, band);
        if (!projected) {
          unpack_gradient(problem, to, layout, scratch, group, head, band);
          continue;
        }
        T* weights = to.weights ? static_cast<T*>(to.weights) + (slice * layout.passes + pass) * share : nullptr;
        if (to.weights || to.inputs)
          differentiate_pass(problem, layout, scratch.maps.inputs, scratch.projection, scratch.projection_gradient,
                             band, scratch.gradient,
                             {pass, weights, task > begin, to.inputs != nullptr, pass > first_pass});
      }
      if (to.inputs)
        unpack_input(problem, to.inputs[part], layout, scratch.maps, scratch.projection, scratch.projection_gradient,
                     group, band);
    }
    T* small = static_cast<T*>(to.small) + item * (2 * shape.head_size + 1);
    alignas(vector_bytes) T total[lanes<T>];
    for (int64_t i = 0; i < 2 * shape.head_size; ++i) {
      const Vector<T> sum[1] = {load(scratch.attention.position_sums + i * lanes<T>)};
      sum_lanes<T, 1>(sum, total);
      small[i] += total[0];
    }
    sum_lanes<T, 1>(rate_gradient, total);
    small[2 * shape.head_size] += total[0];
  }
}

}  // namespace acmix::ACMIX_ISA
