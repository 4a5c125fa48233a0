// Convolutions of one cell of maps whose channels are adjacent.
#pragma once

#include "kernels.h"
#include "operators/tensors.h"

namespace acmix {
namespace {

// Weight (C', C, 1, 1) and bias (C') or none; a map (B, C', H, W) that is added, or none; ReLU. In place the output
// takes that map's.
struct Layer {
  Tensor weight;
  MaybeTensor bias, shortcut;
  bool rectified, in_place = false;
};

// Whether channels last, and nothing between pixels.
bool has_dense_pixels(const Tensor& map) {
  int64_t stride = 1;
  for (int64_t axis : {1, 3, 2, 0}) {
    if (map.size(axis) > 1 && map.stride(axis) != stride) return false;
    stride *= map.size(axis);
  }
  return true;
}

// As the kernels read it: in the compute type, or bfloat16 where they multiply pairs of an input of that.
Tensor weight_of(const Tensor& weight, const Tensor& input, const Kernels& kernels) {
  const Element element = weight.element(), wide = compute_type(input);
  require(element == wide || element == input.element(), "the weight of a layer must be as its input, or wide");
  const bool pairs = element == Element::bfloat16 && kernels.read_bfloat16 && input.size(1) % 2 == 0;
  return densely(pairs ? weight : in_type(wide, weight));
}

Tensor convolve(const Tensor& input, const Layer& layer, int64_t stride = 1) {
  require(input.dim() == 4 && (input.stride(1) == 1 || input.size(1) == 1),
          "a layer must read (B, C, H, W) with adjacent channels");
  const int64_t batch = input.size(0), inputs = input.size(1), one = 1;
  const int64_t height = (input.size(2) + stride - 1) / stride, width = (input.size(3) + stride - 1) / stride;
  require(layer.weight.dim() == 4 && sizes_of(layer.weight) == std::vector{layer.weight.size(0), inputs, one, one},
          "the weight of a layer must be (C', C, 1, 1)");
  const int64_t outputs = layer.weight.size(0);
  const std::vector<int64_t> sizes = {batch, outputs, height, width};
  const Kernels& kernels = best_kernels(input.element() == Element::float64);
  const Tensor weight = weight_of(layer.weight, input, kernels);
  const MaybeTensor bias = densely(in_type(compute_type(input), layer.bias));
  require(!bias || bias->numel() == outputs, "the bias of a layer must be (C')");
  const MaybeTensor& shortcut = layer.shortcut;
  require(!shortcut || (shortcut->dim() == 4 && sizes_of(*shortcut) == sizes && has_dense_pixels(*shortcut) &&
                        shortcut->element() == input.element()),
          "a shortcut must be as the output of its layer, with channels last, dense");
  const Tensor output = layer.in_place ? *shortcut : input.empty(sizes, input.element(), true);
  if (output.numel() == 0) return output;
  if (!layer.in_place) ask_for_large_pages(output);
  Pointwise problem = {batch * height * width,
                       inputs,
                       outputs,
                       stride,
                       height,
                       width,
                       channels_of(input, 0, inputs),
                       weight.element(),
                       weight.const_data_ptr(),
                       bias ? bias->const_data_ptr() : nullptr,
                       shortcut ? shortcut->const_data_ptr() : nullptr,
                       output.mutable_data_ptr(),
                       layer.rectified,
                       number_of_threads(),
                       nullptr};
  if (const PackingWork work = kernels.pointwise_packing(problem); work.numbers) {
    const size_t size = compute_type(input) == Element::float64 ? sizeof(double) : sizeof(float);
    problem.packed = workspace(static_cast<size_t>(work.numbers) * size, Use::weights);
    parallel_for(work.parts, 1, [&](int64_t first, int64_t last) { kernels.pack_pointwise(problem, first, last); });
  }
  parallel_for(kernels.pointwise_tasks(problem), 1,
               [&](int64_t first, int64_t last) { kernels.convolve_pointwise(problem, first, last); });
  return output;
}

}  // namespace
}  // namespace acmix
