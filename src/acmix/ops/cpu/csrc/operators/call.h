// One call of an operator: its arguments checked, and the problem that the kernels take.
#pragma once

#include "kernels.h"
#include "operators/tensors.h"

namespace acmix {
namespace {

// The weights of the convolution path in the compute type: fc (P, 3 N) or none, dep (C, P, k, k) in either memory
// format, beta or none. `composed` says whether fc and dep are computed as one kernel.
struct Weights {
  MaybeTensor fc;
  Tensor dep;
  MaybeTensor rate;
  bool composed;

  Weights(Element type, const MaybeTensor& fc_weight, const Tensor& dep_weight, const MaybeTensor& rate_convolution,
          bool one_kernel)
      : fc(densely(in_type(type, fc_weight))),
        dep(in_type(type, dep_weight)),
        rate(in_type(type, rate_convolution)),
        composed(one_kernel) {
    require(dep.dim() == 4, "dep must be (C, P, k, k)");
    if (!has_channels_last(dep)) dep = densely(dep);
  }

  bool composes() const { return fc && composed; }
  int64_t maps() const { return composes() ? fc->size(1) : dep.size(1); }
  Composition composition() const {
    constexpr int64_t channels = 64, most_parts = 8;
    const int64_t parts = (dep.size(0) + channels - 1) / channels, taps = dep.size(2) * dep.size(3);
    const bool last = !dep.is_contiguous();
    return {dep.size(0),
            dep.size(1),
            maps(),
            taps,
            parts < most_parts ? parts : most_parts,
            last ? 1 : taps,
            last ? dep.size(1) : 1,
            fc->const_data_ptr(),
            dep.const_data_ptr(),
            number_of(rate)};
  }

  // What the kernels convolve with: (C, 3 N or P, k, k).
  Tensor kernel(const Kernels& kernels) const {
    if (!composes() && !rate && dep.is_contiguous()) return dep;
    Tensor kernel = dep.empty({dep.size(0), maps(), dep.size(2), dep.size(3)}, dep.element());
    if (composes()) {
      const Composition weights = composition();
      parallel_for(weights.parts, 1, [&](int64_t first, int64_t last) {
        kernels.compose(weights, kernel.mutable_data_ptr(), first, last);
      });
    } else {
      kernel.copy_from(dep);
      if (rate) scale(kernel, number_of(rate));
    }
    return kernel;
  }
};

// Parameters of both paths: W_p (D, 2) or none, alpha or none, and the convolution path.
struct Parameters {
  MaybeTensor position, rate;
  Weights convolution;
};

// Stage I: weight (3 C, C_in, 1, 1) and bias (3 C) or none, C = N D.
struct Projections {
  Tensor weight;
  MaybeTensor bias;
  int64_t heads;
};

// Before and behind all stages, for inference: ReLU of the input; a bias (C) or none and ReLU of the output.
struct Between {
  bool rectified_input = false;
  MaybeTensor bias;
  bool rectified = false;
};

// The tensors and numbers of one call, as an operator takes them; window 0 means no attention, no kernel no
// convolution.
struct Call {
  Tensor like;
  Field query = {}, key = {}, value = {};
  MaybeTensor position, rate, kernel, mixing;
  std::optional<Projections> projections;
  Between ends;
  int64_t window, kernel_size = 0;
  Shape shape;
  bool is_double, channels_last;

  // Attention alone, of maps (B, N, D, H, W).
  Call(const Tensor& q, const Tensor& k, const Tensor& v, int64_t size, int64_t stride)
      : like(q), query(heads_of(q, 0)), key(heads_of(k, 0)), value(heads_of(v, 0)), window(size) {
    for (const Tensor* other : {&k, &v}) {
      require(other->element() == like.element(), "key and value must have query's dtype");
      for (int64_t axis = 0; axis < 5; ++axis)
        require(other->size(axis) == like.size(axis), "key and value must have query's shape");
    }
    set_shape(like.size(1), like.size(2), stride);
  }

  // Both paths, of projections (B, 3 N, D, H, W).
  Call(const Tensor& maps, const Parameters& parameters, int64_t size, int64_t stride)
      : like(maps),
        query(heads_of(maps, 0)),
        key(heads_of(maps, maps.size(1) / 3)),
        value(heads_of(maps, maps.size(1) / 3 * 2)),
        window(size) {
    require(like.size(1) % 3 == 0, "projections must have the shape (B, 3 N, D, H, W)");
    set_shape(like.size(1) / 3, like.size(2), stride);
    take(parameters);
  }

  // All stages, of an input (B, C_in, H, W).
  Call(const Tensor& input, const Projections& stage, const Parameters& parameters, int64_t size, int64_t stride,
       bool backward = false)
      : like(input), projections(stage), window(size) {
    require(like.dim() == 4, "the input must have the shape (B, C_in, H, W)");
    const int64_t maps = stage.weight.size(0);
    require(stage.heads > 0 && maps % (3 * stage.heads) == 0, "weight must be (3 N D, C_in, 1, 1)");
    set_shape(stage.heads, maps / (3 * stage.heads), stride);
    const bool as_it_is = stage.weight.element() == Element::bfloat16 && reads_bfloat16() && !backward;
    projections->weight = densely(as_it_is ? stage.weight : in_type(compute_type(like), stage.weight));
    projections->bias = parameter(stage.bias);
    check_parameter(projections->weight, {maps, like.size(1), 1, 1}, "weight must be (3 N D, C_in, 1, 1)");
    check_parameter(projections->bias, {maps}, "bias must be (3 N D)");
    take(parameters);
  }

  void take(const Parameters& parameters) {
    const Weights& weights = parameters.convolution;
    position = parameter(parameters.position);
    rate = parameter(parameters.rate);
    check_parameter(position, {shape.head_size, 2}, "position must be (D, 2)");
    for (const MaybeTensor& number : {rate, weights.rate})
      require(!number || (number->numel() == 1 && number->dim() <= 1), "rates are one element");
    kernel_size = weights.dep.size(3);
    const int64_t maps = 3 * shape.heads, inputs = weights.fc ? weights.fc->size(0) : maps;
    check_parameter(weights.fc, {inputs, maps}, "fc must be (P, 3 N)");
    const Tensor& dep = weights.dep;
    require(dep.size(0) == shape.heads * shape.head_size && dep.size(1) == inputs && dep.size(2) == kernel_size &&
                kernel_size % 2 == 1,
            "dep must be (C, P, k, k) with k odd");
    kernel = weights.kernel(best_kernels(is_double));
    if (!weights.composed) mixing = weights.fc;
  }

  void take(const Between& given) {
    ends = {given.rectified_input, parameter(given.bias), given.rectified};
    check_parameter(ends.bias, {shape.heads * shape.head_size}, "the output's bias must be (C)");
  }

  // Batch and size are the first and the last axes of `like`, channels that lie together the third last.
  void set_shape(int64_t heads, int64_t head_size, int64_t stride) {
    require(stride >= 1 && window >= 0 && (window == 0 || window % 2 == 1), "window must be odd, stride >= 1");
    const int64_t axis = like.dim() - 3;
    shape = {like.size(0), heads, head_size, like.size(axis + 1), like.size(axis + 2), stride, 0, 0};
    shape.height_out = (shape.height + stride - 1) / stride;
    shape.width_out = (shape.width + stride - 1) / stride;
    require(heads > 0 && like.size(axis) > 0 && shape.height > 0 && shape.width > 0, "maps must not be empty");
    is_double = like.element() == Element::float64;
    channels_last = like.stride(axis) == 1 && like.size(axis) > 1 && shape.height * shape.width > 1;
  }

  // Whether weights of the input's dtype are bfloat16 that the kernels read.
  bool reads_bfloat16() const { return like.element() == Element::bfloat16 && best_kernels(is_double).read_bfloat16; }

  // As the kernels read it.
  MaybeTensor parameter(const MaybeTensor& tensor) const { return densely(in_type(compute_type(like), tensor)); }

  void check_parameter(const MaybeTensor& tensor, const std::vector<int64_t>& sizes, const char* rule) const {
    require(!tensor || sizes_of(*tensor) == sizes, rule);
  }

  // A map of 4 axes in the memory order of the input.
  Tensor empty_map(int64_t channels, int64_t height, int64_t width) const {
    return empty_map(channels, height, width, like.element());
  }
  // The same in the compute type.
  Tensor empty_share(int64_t channels, int64_t height, int64_t width) const {
    return empty_map(channels, height, width, compute_type(like));
  }
  Tensor empty_map(int64_t channels, int64_t height, int64_t width, Element type) const {
    Tensor map = like.empty({shape.batch, channels, height, width}, type, channels_last);
    ask_for_large_pages(map);
    return map;
  }
};

Mix problem_of(const Call& call, const Tensor& output, const Locations& columns, const Locations& rows) {
  const Attention attention = {call.window, call.position ? call.position->const_data_ptr() : nullptr,
                               columns.data(call.is_double), rows.data(call.is_double), number_of(call.rate)};
  const Convolution convolution = {call.kernel_size, call.mixing ? call.mixing->size(0) : 0,
                                   call.kernel ? call.kernel->const_data_ptr() : nullptr,
                                   call.mixing ? call.mixing->const_data_ptr() : nullptr};
  Projection projection = {};
  if (call.projections) {
    const auto& [weight, bias, heads] = *call.projections;
    projection = {call.like.size(1),       channels_of(call.like, 0, call.like.size(1)), weight.element(),
                  weight.const_data_ptr(), bias ? bias->const_data_ptr() : nullptr,      nullptr};
  }
  return {
      call.shape,
      call.query,
      call.key,
      call.value,
      channels_of(output, 0, call.shape.head_size),
      attention,
      convolution,
      projection,
      number_of_threads(),
      {call.ends.rectified_input, call.ends.bias ? call.ends.bias->const_data_ptr() : nullptr, call.ends.rectified}};
}

}  // namespace
}  // namespace acmix
