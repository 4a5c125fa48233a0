// What the operators hand to the kernels: plain structs, the same in every instruction-set build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acmix {

enum class Element { float32, float64, float16, bfloat16 };

// A tensor of five axes (batch, head, channel of the head, row, column) by strides, in elements.
struct Field {
  void* data;
  Element element;
  int64_t batch, outer, inner, row, column;
};

// Sizes: B images, N heads of D channels, H x W cells; H' x W' = ceil(. / stride) outputs.
struct Shape {
  int64_t batch, heads, head_size, height, width, stride, height_out, width_out;
};

// The attention path; window 0 where there is none. position is W_p, (D, 2), in the compute type, or null;
// column_location and row_location are linspace(-1, 1, .).
struct Attention {
  int64_t window;
  const void *position, *column_location, *row_location;
  double rate;
};

// The convolution path; kernel is null where there is none. Either composed (positions = 0: kernel is
// (D, N, 3 N, taps)) or in two steps (mixing is fc, (P, 3 N), and kernel is dep_conv, (D, N, P, taps)); both in the
// compute type, the rate already inside the kernel. Channel d of head m gives to output channel d * N + m.
struct Convolution {
  int64_t kernel_size, positions;
  const void *kernel, *mixing;
};

// Stage I, where it is part of the call: the projections of `input`, (B, 1, C_in, H, W), by weight (3 C, C_in) and bias
// (3 C) or null, both in the compute type; forward the weight may be bfloat16 where kernels read that. inputs is C_in,
// 0 where the projections are given. packed are weight and bias as pack_weights leaves them, null where it has no work.
struct Projection {
  int64_t inputs;
  Field input;
  Element weight_element;
  const void *weight, *bias;
  void* packed;
};

// What is done to the input where it is packed, and to the output where it is written, forward: ReLU, and a bias (C) in
// the compute type, or null.
struct Ends {
  bool rectified_input;
  const void* bias;
  bool rectified;
};

// Both paths of one call. `output` is the output, or its gradient in the backward pass; threads says how many tasks
// keep every thread at work.
struct Mix {
  Shape shape;
  Field query, key, value, output;  // no queries, keys and values where they are projected
  Attention attention;
  Convolution convolution;
  Projection projection;
  int64_t threads;
  Ends ends;
};

// Where gradients go: those of the maps are written, the share of every slice (of kernel and mixing) or item (of
// position (D, 2), then rate) is added to its own part, which the caller sums in order. Where the maps are projected,
// written are instead the share that every part of the passes has in the gradient of the input, and the share of every
// slice in those of weight and bias, BackwardWork::weights numbers, for sum_weights; null where they are not wanted.
struct MixGradient {
  Field query, key, value;
  void *kernel, *mixing, *small;
  const Field* inputs;
  void* weights;
};

struct BackwardWork {
  int64_t items, slices, parts, weights, weight_registers;
};

// Weights of stage I in the order in which products read them: how many numbers, packed in how many parts.
struct PackingWork {
  int64_t numbers, parts;
};

// fc (positions, maps) and a kernel (channels, positions, taps) that become one kernel (channels, maps, taps), times
// rate, in `parts` parts of the channels. The first kernel lies `position` from position to position, `tap` from tap to
// tap.
struct Composition {
  int64_t channels, positions, maps, taps, parts, position, tap;
  const void *mixing, *kernel;
  double rate;
};

// A convolution of one cell: `output`, (cells, outputs), is the product of weight, (outputs, inputs), and every
// stride-th cell of the input, (B, 1, inputs, H, W), plus bias, (outputs), plus `shortcut`, as the output, each null
// where there is none, and rectified. Channels are adjacent. Weight and bias are in the compute type, or the weight
// bfloat16 where pairs are multiplied; packed are both as pack_pointwise leaves them.
struct Pointwise {
  int64_t cells, inputs, outputs, stride, height_out, width_out;
  Field input;
  Element weight_element;
  const void *weight, *bias, *shortcut;
  void* output;
  bool rectified;
  int64_t threads;
  void* packed;
};

// Tasks are independent; those of the backward pass, which sum, are fixed by the shape, and where maps are
// projected by the number of threads.
struct Kernels {
  bool read_bfloat16;
  PackingWork (*packing_work)(const Mix&, bool backward);
  void (*pack_weights)(const Mix&, bool backward, void* packed, int64_t first, int64_t last);
  int64_t (*forward_tasks)(const Mix&);
  void (*forward)(const Mix&, int64_t first, int64_t last);
  BackwardWork (*backward_work)(const Mix&);
  void (*backward)(const Mix&, const MixGradient&, int64_t first, int64_t last);
  void (*sum_weights)(const Mix&, const void* shares, void* weight, void* bias, int64_t first, int64_t last);
  PackingWork (*pointwise_packing)(const Pointwise&);
  void (*pack_pointwise)(const Pointwise&, int64_t first, int64_t last);
  int64_t (*pointwise_tasks)(const Pointwise&);
  void (*convolve_pointwise)(const Pointwise&, int64_t first, int64_t last);
  void (*compose)(const Composition&, void* composed, int64_t first, int64_t last);
  void (*compose_backward)(const Composition&, const void* gradient, void* kernel, void* mixing, int64_t first,
                           int64_t last);
};

// Scratch of the calling thread, 64-byte aligned, kept between calls so that its pages are mapped once: for the tasks
// that it computes, and for weights that all threads read.
enum class Use { tasks, weights };
void* workspace(size_t bytes, Use use);

}  // namespace acmix
