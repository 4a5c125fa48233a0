// Scratch layout of the convolution path's backward pass: per channel d, 3 N padded maps through k x k taps to N maps.
//
// A map is split into stride^2 phase images, so that every tap of every output is a constant offset, and flattened:
// positions run over rows of `pitch` cells, the padding between rows is computed and dropped.
#pragma once

#include "convolve.h"

namespace acmix::ACMIX_ISA {

constexpr int64_t plane_cache_bytes = 1 << 20, wanted_slices = 16;

template <class T>
struct PlaneLayout {
  int64_t kernel, radius, stride, taps, inputs, outputs, positions;
  int64_t block, blocks, bands, band_rows, reach;  // channels d a task; bands of output rows; taps / stride
  int64_t pitch, phase_size, plane, out_front, out_plane;
  bool composed;

  explicit PlaneLayout(const Convolution& problem) {
    const Shape& shape = problem.shape;
    kernel = problem.kernel_size;
    radius = kernel / 2;
    stride = shape.stride;
    taps = kernel * kernel;
    inputs = 3 * shape.heads;
    outputs = shape.heads;
    composed = problem.positions == 0;
    positions = composed ? inputs : problem.positions;
    reach = (kernel - 1) / stride;
    // Channels adjacent in memory are read a register block at a time.
    block = problem.query.inner == 1 && problem.query.column != 1 ? least(lanes<T>, shape.head_size) : 1;
    blocks = ceil_divide(shape.head_size, block);
    pitch = most(ceil_divide(shape.width + 2 * radius, stride), shape.width_out + reach);
    const int64_t row_bytes = 2 * block * (inputs + outputs) * stride * stride * pitch * static_cast<int64_t>(sizeof(T));
    const int64_t cached = most(plane_cache_bytes / row_bytes, 4 * kernel);
    bands = ceil_divide(shape.height_out, cached);
    band_rows = ceil_divide(shape.height_out, bands);
    bands = ceil_divide(shape.height_out, band_rows);
    phase_size = round_up((band_rows + reach + 1) * pitch + round_up(shape.width, lanes<T>), lanes<T>);
    plane = stride * stride * phase_size;
    out_front = round_up(reach * pitch + reach, lanes<T>);
    out_plane = 2 * out_front + round_up((band_rows + 2) * pitch + round_up(shape.width, lanes<T>), lanes<T>);
  }

  int64_t channels(const Shape& shape, int64_t index) const { return least(block, shape.head_size - index * block); }
};

template <class T>
struct PlaneScratch {
  int64_t *offsets, *taps, *phase_taps;
  T *line, *input, *mixed, *output, *input_gradient, *mixed_gradient, *transposed;
  int64_t line_pitch, weight_size;

  PlaneScratch(const PlaneLayout<T>& layout, const Shape& shape, Arena<T>& arena) {
    constexpr int64_t words = 8 / static_cast<int64_t>(sizeof(T));
    const int64_t slack = tile_vectors * lanes<T>, mixed_size = layout.composed ? 0 : layout.positions * layout.plane;
    offsets = reinterpret_cast<int64_t*>(arena.take(most(layout.positions, layout.inputs) * layout.taps * words));
    taps = reinterpret_cast<int64_t*>(arena.take(layout.taps * words));
    phase_taps = reinterpret_cast<int64_t*>(arena.take(layout.taps * words));
    line_pitch = round_up(shape.width, lanes<T>);
    line = arena.take(layout.block * line_pitch);
    weight_size = layout.positions * layout.outputs * layout.taps;
    transposed = arena.take(most(weight_size, layout.positions * layout.inputs));
    input = arena.take(layout.block * layout.inputs * layout.plane + slack);
    mixed = arena.take(mixed_size + slack);
    output = arena.take(layout.block * layout.outputs * layout.out_plane + slack);
    input_gradient = arena.take(layout.block * layout.inputs * layout.plane + slack);
    mixed_gradient = arena.take(mixed_size + slack);
    if (!arena.memory) return;
    for (int64_t t = 0; t < layout.taps; ++t) {
      const int64_t u = t / layout.kernel, v = t % layout.kernel;
      taps[t] = (u % layout.stride * layout.stride + v % layout.stride) * layout.phase_size +
                u / layout.stride * layout.pitch + v / layout.stride;
    }
  }
};

template <class T>
static PlaneScratch<T> make_plane_scratch(const PlaneLayout<T>& layout, const Shape& shape) {
  Arena<T> arena;
  PlaneScratch<T>(layout, shape, arena);
  const size_t bytes = static_cast<size_t>(arena.used) * sizeof(T);
  arena = {static_cast<T*>(workspace(bytes)), 0};
  std::memset(arena.memory, 0, bytes);
  return PlaneScratch<T>(layout, shape, arena);
}

// Rows that the outputs [first, last) read, of all 3 N maps of the channels of one block; zeros outside the map.
template <class T>
static void pack_planes(const Convolution& problem, const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch,
                        int64_t image, int64_t block, int64_t first, int64_t last) {
  const Shape& shape = problem.shape;
  const int64_t stride = layout.stride, channels = layout.channels(shape, block);
  const int64_t line_step = layout.inputs * layout.plane;
  const Field* fields[] = {&problem.query, &problem.key, &problem.value};
  for (int64_t c = 0; c < layout.inputs; ++c) {
    const Field& field = *fields[c / shape.heads];
    const int64_t base = image * field.batch + c % shape.heads * field.outer + block * layout.block * field.inner;
    for (int64_t i = 0; i < stride * (last - first - 1) + layout.kernel; ++i) {
      const int64_t row = stride * first + i - layout.radius;
      T* target = scratch.input + c * layout.plane + i % stride * stride * layout.phase_size + i / stride * layout.pitch;
      if (row < 0 || row >= shape.height) {
        for (int64_t d = 0; d < channels; ++d)
          for (int64_t phase = 0; phase < stride; ++phase)
            std::memset(target + d * line_step + phase * layout.phase_size, 0, layout.pitch * sizeof(T));
        continue;
      }
      T* line = stride == 1 ? target + layout.radius : scratch.line;
      load_lines(field, base + row * field.row, field.inner, field.column, channels, shape.width, line,
                 stride == 1 ? line_step : scratch.line_pitch);
      for (int64_t d = 0; d < channels && stride > 1; ++d)
        split_phases(line + d * scratch.line_pitch, shape.width, stride, layout.radius, target + d * line_step,
                     layout.phase_size);
    }
  }
}

// The way back for gradients: the input rows [first, last) of the map, first on row `radius` of the packed band.
template <class T>
static void unpack_planes(const Convolution& problem, const ConvolutionGradient& to, const PlaneLayout<T>& layout,
                          const PlaneScratch<T>& scratch, int64_t image, int64_t block, int64_t first, int64_t last) {
  const Shape& shape = problem.shape;
  const int64_t stride = layout.stride, channels = layout.channels(shape, block);
  const int64_t line_step = layout.inputs * layout.plane;
  const Field* fields[] = {&to.query, &to.key, &to.value};
  for (int64_t c = 0; c < layout.inputs; ++c) {
    const Field& field = *fields[c / shape.heads];
    const int64_t base = image * field.batch + c % shape.heads * field.outer + block * layout.block * field.inner;
    for (int64_t row = first; row < last; ++row) {
      const int64_t i = row - first + layout.radius;
      const T* from =
          scratch.input_gradient + c * layout.plane + i % stride * stride * layout.phase_size + i / stride * layout.pitch;
      for (int64_t d = 0; d < channels && stride > 1; ++d)
        join_phases(from + d * line_step, layout.phase_size, shape.width, stride, layout.radius,
                    scratch.line + d * scratch.line_pitch);
      store_lines(stride == 1 ? from + layout.radius : scratch.line, stride == 1 ? line_step : scratch.line_pitch,
                  field, base + row * field.row, field.inner, field.column, channels, shape.width, false);
    }
  }
}

// The maps that the taps read for channel d of the block: the inputs, or their P mixtures.
template <class T>
static const T* tapped_planes(const Convolution& problem, const PlaneLayout<T>& layout, const PlaneScratch<T>& scratch,
                              int64_t d) {
  const T* input = scratch.input + d * layout.inputs * layout.plane;
  if (layout.composed) return input;
  const int64_t here = 0;
  convolve({input, layout.plane, layout.inputs}, &here, 1,
           Weights<T>{static_cast<const T*>(problem.mixing), layout.inputs, layout.inputs},
           Planes<T>{scratch.mixed, layout.plane, layout.positions}, layout.plane / lanes<T>);
  return scratch.mixed;
}

template <class T>
static int64_t convolution_slices(const Convolution& problem) {
  return most(1, least(problem.shape.batch, ceil_divide(wanted_slices, PlaneLayout<T>(problem).blocks)));
}

template <class T>
static int64_t convolution_tasks(const Convolution& problem) {
  return PlaneLayout<T>(problem).blocks * convolution_slices<T>(problem);
}

}  // namespace acmix::ACMIX_ISA
