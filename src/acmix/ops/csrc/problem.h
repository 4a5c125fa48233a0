// What the operators hand to the kernels: plain structs, the same in every instruction-set build.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acmix {

enum class Element { float32, float64, float16, bfloat16 };

// A tensor of five axes (batch, outer, inner, row, column) by strides, in elements. Heads and their channels are
// (outer, inner) for attention; the output of the convolution path, channel d * N + m, is (outer = d, inner = m).
struct Field {
  void* data;
  Element element;
  int64_t batch, outer, inner, row, column;
};

// Sizes: B images, N heads of D channels, H x W cells; H' x W' = ceil(. / stride) outputs.
struct Shape {
  int64_t batch, heads, head_size, height, width, stride, height_out, width_out;
};

// position is W_p, (D, 2), in the compute type, or null; column_location and row_location are linspace(-1, 1, .),
// followed by 64 bytes of zeros.
struct Attention {
  Shape shape;
  int64_t window;
  Field query, key, value, output;
  const void *position, *column_location, *row_location;
  double rate;
};

// Gradients of one attention problem; `output` above is the gradient of the output. A task adds its share of
// (d position (D, 2), d rate) to partial[task * (2 D + 1)], summed by the caller in order; `accumulate` adds to the
// gradients of query, key and value that the convolution path has already written.
struct AttentionGradient {
  Field query, key, value;
  void* partial;
  bool accumulate;
};

// The convolution path. Either composed (positions = 0: kernel is (D, N, 3 N, taps)) or in two steps (mixing is fc,
// (P, 3 N), and kernel is dep_conv, (D, N, P, taps)); both in the compute type, the rate already inside the kernel.
struct Convolution {
  Shape shape;
  int64_t kernel_size, positions;
  Field query, key, value, output;
  const void *kernel, *mixing;
};

// Both paths of one call, of the same maps and shape; attention's window is 0, or the convolution's kernel null, where
// there is none. `output` has one axis of channels, `inner`; threads says how many tasks keep every thread at work.
struct Mix {
  Attention attention;
  Convolution convolution;
  Field output;
  int64_t threads;
};

// A task adds its share of the gradients of kernel and mixing to its own slice.
struct ConvolutionGradient {
  Field query, key, value;
  void *kernel, *mixing;
};

// Tasks are independent; those of the backward pass, which sum, are fixed by the shape, never by the threads.
struct Kernels {
  int64_t (*mix_tasks)(const Mix&);
  void (*mix_forward)(const Mix&, int64_t first, int64_t last);
  int64_t (*attention_tasks)(const Attention&);
  void (*attention_backward)(const Attention&, const AttentionGradient&, int64_t first, int64_t last);
  int64_t (*convolution_tasks)(const Convolution&);
  int64_t (*convolution_slices)(const Convolution&);
  void (*convolution_backward)(const Convolution&, const ConvolutionGradient&, int64_t first, int64_t last);
};

// Scratch of the calling thread, 64-byte aligned, kept between calls so that its pages are mapped once.
void* workspace(size_t bytes);

}  // namespace acmix
