// The convolution path, backward: transposed taps for the maps, correlations for the weights.
#pragma once

#include "convolution.h"

namespace acmix::ACMIX_ISA {

// Gradient rows [first - reach, last + reach + 1) of the outputs of a block, zeros outside; row `first` begins at
// out_front, so that the rows before it and the columns between rows are the zeros that the taps read.
template <class T>
static void pack_gradient(const Convolution& problem, const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch,
                          int64_t image, int64_t block, int64_t first, int64_t last) {
  const Shape& shape = problem.shape;
  const Field& field = problem.output;
  const int64_t lines = layout.channels(shape, block) * layout.outputs;
  for (int64_t row = first - layout.reach; row < last + layout.reach + 1; ++row) {
    T* target = scratch.output + layout.out_front + (row - first) * layout.pitch;
    if (row < 0 || row >= shape.height_out) {
      for (int64_t j = 0; j < lines; ++j) std::memset(target + j * layout.out_plane, 0, layout.pitch * sizeof(T));
    } else {
      load_lines(field, image * field.batch + block * layout.block * field.outer + row * field.row, field.inner,
                 field.column, lines, shape.width_out, target, layout.out_plane);
    }
  }
}

// Of one phase image of the inputs, the rows that belong to the band: first position and their number.
struct PhaseRows {
  int64_t start, positions;

  template <class T>
  PhaseRows(const PlaneLayout<T>& layout, int64_t phase_row, int64_t rows) {
    const int64_t skipped = most(layout.radius - phase_row, 0);
    const int64_t first = ceil_divide(skipped, layout.stride);
    const int64_t end = layout.radius + rows - phase_row;
    start = first * layout.pitch;
    positions = most(end > 0 ? ceil_divide(end, layout.stride) - first : 0, 0) * layout.pitch;
  }
};

// The chosen taps of weights `(outputs, inputs, taps)` as `(inputs, outputs, chosen)`.
template <class T>
static void transpose_weight(const T* weight, int64_t outputs, int64_t inputs, int64_t taps, const int64_t* chosen,
                             int64_t count, T* to) {
  for (int64_t c = 0; c < inputs; ++c)
    for (int64_t m = 0; m < outputs; ++m)
      for (int64_t t = 0; t < count; ++t) *to++ = weight[(m * inputs + c) * taps + chosen[t]];
}

// Gradients of the tapped planes of channel d on the band's own rows of the map.
template <class T>
static void transpose_taps(const Convolution& problem, const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch,
                           int64_t block, int64_t d, int64_t rows, T* weight, T* to) {
  const T* kernel = static_cast<const T*>(problem.kernel) + (block * layout.block + d) * scratch.weight_size;
  const T* gradient = scratch.output + d * layout.outputs * layout.out_plane + layout.out_front;
  const int64_t stride = layout.stride;
  for (int64_t phase = 0; phase < stride * stride; ++phase) {
    int64_t count = 0;
    for (int64_t t = 0; t < layout.taps; ++t) {
      const int64_t u = t / layout.kernel, v = t % layout.kernel;
      if (u % stride * stride + v % stride != phase) continue;
      scratch.phase_taps[count] = -(u / stride * layout.pitch + v / stride);
      scratch.offsets[count++] = t;
    }
    const PhaseRows range(layout, phase / stride, rows);
    transpose_weight(kernel, layout.outputs, layout.positions, layout.taps, scratch.offsets, count, weight);
    convolve({gradient + range.start, layout.out_plane, layout.outputs}, scratch.phase_taps, count,
             Weights<T>{weight, layout.outputs * count, layout.outputs},
             Planes<T>{to + phase * layout.phase_size + range.start, layout.plane, layout.positions},
             ceil_divide(range.positions, lanes<T>));
  }
}

template <class T>
static void correlate_kernel(const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch, const T* planes, int64_t d,
                             int64_t positions, T* to) {
  for (int64_t c = 0; c < layout.positions; ++c)
    for (int64_t t = 0; t < layout.taps; ++t) scratch.offsets[c * layout.taps + t] = c * layout.plane + scratch.taps[t];
  correlate(scratch.output + d * layout.outputs * layout.out_plane + layout.out_front, layout.out_plane,
            layout.outputs, planes, scratch.offsets, layout.positions * layout.taps, positions, to);
}

// Through fc: gradients of the inputs from those of the mixtures, and of fc itself, on the band's own rows.
template <class T>
static void unmix(const Convolution& problem, const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch, int64_t d,
                  int64_t rows, T* weight, T* to) {
  const int64_t here = 0;
  transpose_weight(static_cast<const T*>(problem.mixing), layout.positions, layout.inputs, 1, &here, 1, weight);
  for (int64_t c = 0; c < layout.inputs; ++c) scratch.offsets[c] = c * layout.plane;
  for (int64_t phase = 0; phase < layout.stride * layout.stride; ++phase) {
    const PhaseRows range(layout, phase / layout.stride, rows);
    const int64_t start = phase * layout.phase_size + range.start, base = d * layout.inputs * layout.plane + start;
    convolve({scratch.mixed_gradient + start, layout.plane, layout.positions}, &here, 1,
             Weights<T>{weight, layout.positions, layout.positions},
             Planes<T>{scratch.input_gradient + base, layout.plane, layout.inputs},
             ceil_divide(range.positions, lanes<T>));
    correlate(scratch.mixed_gradient + start, layout.plane, layout.positions, scratch.input + base, scratch.offsets,
              layout.inputs, range.positions, to);
  }
}

template <class T>
static void convolution_backward_band(const Convolution& problem, const ConvolutionGradient& to,
                                      const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch, int64_t slice,
                                      int64_t image, int64_t block, int64_t band) {
  const Shape& shape = problem.shape;
  const int64_t first = band * layout.band_rows, last = least(first + layout.band_rows, shape.height_out);
  const int64_t row = layout.stride * first, row_last = least(layout.stride * last, shape.height);
  const int64_t positions = (last - first - 1) * layout.pitch + shape.width_out;
  pack_planes(problem, layout, scratch, image, block, first, last);
  pack_gradient(problem, layout, scratch, image, block, first, last);
  for (int64_t d = 0; d < layout.channels(shape, block); ++d) {
    const int64_t channel = slice * shape.head_size + block * layout.block + d;
    T* kernel = static_cast<T*>(to.kernel) + channel * scratch.weight_size;
    correlate_kernel(layout, scratch, tapped_planes(problem, layout, scratch, d), d, positions, kernel);
    T* weight = scratch.transposed;
    if (layout.composed) {
      transpose_taps(problem, layout, scratch, block, d, row_last - row, weight,
                     scratch.input_gradient + d * layout.inputs * layout.plane);
    } else {
      transpose_taps(problem, layout, scratch, block, d, row_last - row, weight, scratch.mixed_gradient);
      unmix(problem, layout, scratch, d, row_last - row, weight,
            static_cast<T*>(to.mixing) + channel * layout.positions * layout.inputs);
    }
  }
  unpack_planes(problem, to, layout, scratch, image, block, row, row_last);
}

// A task is one block of channels and one slice of the images, whose weight gradients it sums in order.
template <class T>
static void convolution_backward(const Convolution& problem, const ConvolutionGradient& to, int64_t first_task,
                                 int64_t last_task) {
  const Shape& shape = problem.shape;
  const PlaneLayout<T> layout(problem);
  const PlaneScratch<T> scratch = make_plane_scratch(layout, shape);
  const int64_t slices = convolution_slices<T>(problem);
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t slice = task % slices, block = task / slices;
    for (int64_t image = slice * shape.batch / slices; image < (slice + 1) * shape.batch / slices; ++image)
      for (int64_t band = 0; band < layout.bands; ++band)
        convolution_backward_band(problem, to, layout, scratch, slice, image, block, band);
  }
}

}  // namespace acmix::ACMIX_ISA
