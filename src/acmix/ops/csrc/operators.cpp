// Registration of Stage II with PyTorch, on LibTorch's stable ABI: checks, allocation, choice of the instruction set.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace acmix {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

const Kernels& best_kernels(bool is_double) {
#if defined(__x86_64__)
  static const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx512) return avx512::kernels(is_double);
  if (avx2) return avx2::kernels(is_double);
#endif
  return baseline::kernels(is_double);
}

Element element_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Element::float32;
    case ScalarType::Double:
      return Element::float64;
    case ScalarType::Half:
      return Element::float16;
    case ScalarType::BFloat16:
      return Element::bfloat16;
    default:
      STD_TORCH_CHECK(false, "query must be float32, float64, float16 or bfloat16");
  }
}

ScalarType compute_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Heads [first, first + N) of a tensor of shape (B, heads, D, H, W).
Field heads_of(const Tensor& tensor, int64_t first) {
  STD_TORCH_CHECK(tensor.dim() == 5, "maps must have the shape (B, heads, D, H, W)");
  const size_t offset = static_cast<size_t>(first * tensor.stride(1)) * tensor.element_size();
  return {static_cast<char*>(tensor.mutable_data_ptr()) + offset,
          element_of(tensor),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3),
          tensor.stride(4)};
}

// Large tensors are mapped anew in every call and their pages cleared as they are first written: in pages of 4 KiB that
// takes three times as long as the writing does, in pages of 2 MiB a third of that.
void ask_for_large_pages(const Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // What is smaller, glibc hands out again with its pages still mapped.
  constexpr uintptr_t fresh = 32 << 20, page = 2 << 20;
  const uintptr_t size = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (size < fresh) return;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t first = (data + page - 1) / page * page, last = (data + size) / page * page;
  // A system without large pages declines, and no harm is done.
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Tensor empty_parameter(const Tensor& like, const std::vector<int64_t>& sizes) {
  Tensor tensor = torch::stable::empty(sizes, compute_type(like), std::nullopt, like.device());
  return torch::stable::zero_(tensor);
}

double number_of(const MaybeTensor& rate) {
  if (!rate) return 1;
  return rate->scalar_type() == ScalarType::Double ? *static_cast<const double*>(rate->const_data_ptr())
                                                   : *static_cast<const float*>(rate->const_data_ptr());
}

// Call f with the tensor's data as a pointer to its type, float or double.
template <class F>
void with_data(const Tensor& tensor, const F& f) {
  if (tensor.scalar_type() == ScalarType::Double)
    f(static_cast<double*>(tensor.mutable_data_ptr()));
  else
    f(static_cast<float*>(tensor.mutable_data_ptr()));
}

// In place: tensor times a number.
void scale(const Tensor& tensor, double factor) {
  with_data(tensor, [&](auto* to) {
    for (int64_t i = 0; i < tensor.numel(); ++i) to[i] *= factor;
  });
}

// Of contiguous tensors.
double inner_product(const Tensor& left, const Tensor& right) {
  double sum = 0;
  with_data(left, [&](const auto* a) {
    const auto* b = static_cast<decltype(a)>(right.const_data_ptr());
    for (int64_t i = 0; i < left.numel(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  });
  return sum;
}

// Networks with channels last have such kernels, too.
torch::headeronly::MemoryFormat format_of(const Tensor& dep) {
  const bool last = dep.stride(1) == 1 && dep.stride(3) == dep.size(1) && dep.stride(2) == dep.size(3) * dep.size(1) &&
                    dep.stride(0) == dep.size(2) * dep.stride(2);
  return last && !dep.is_contiguous() ? torch::headeronly::MemoryFormat::ChannelsLast
                                      : torch::headeronly::MemoryFormat::Contiguous;
}

// The weights of the convolution path as parameters: fc (P, 3 N) or none, dep (C, P, k, k) in either memory format, beta
// or none. `composed` says whether fc and dep are computed as one kernel.
struct Weights {
  MaybeTensor fc;
  Tensor dep;
  MaybeTensor rate;
  bool composed;

  Weights(const MaybeTensor& fc_weight, const Tensor& dep_weight, const MaybeTensor& rate_convolution, bool one_kernel)
      : fc(fc_weight), dep(dep_weight), rate(rate_convolution), composed(one_kernel) {
    STD_TORCH_CHECK(dep.dim() == 4, "dep must be (C, P, k, k)");
    dep = torch::stable::contiguous(dep, format_of(dep));
  }

  bool composes() const { return fc && composed; }
  int64_t maps() const { return composes() ? fc->size(1) : dep.size(1); }
  Composition composition() const {
    constexpr int64_t channels = 64, most_parts = 8;
    const int64_t parts = (dep.size(0) + channels - 1) / channels, taps = dep.size(2) * dep.size(3);
    const bool last = !dep.is_contiguous();
    return {dep.size(0),           dep.size(1),          maps(),         taps, parts < most_parts ? parts : most_parts,
            last ? 1 : taps,       last ? dep.size(1) : 1, fc->const_data_ptr(), dep.const_data_ptr(), number_of(rate)};
  }

  // What the kernels convolve with: (C, 3 N or P, k, k).
  Tensor kernel(const Kernels& kernels) const {
    Tensor kernel = torch::stable::empty({dep.size(0), maps(), dep.size(2), dep.size(3)}, dep.scalar_type(),
                                         std::nullopt, dep.device());
    if (composes()) {
      const Composition weights = composition();
      torch::stable::parallel_for(0, weights.parts, 1, [&](int64_t first, int64_t last) {
        kernels.compose(weights, kernel.mutable_data_ptr(), first, last);
      });
    } else {
      torch::stable::copy_(kernel, dep);
      if (rate) scale(kernel, number_of(rate));
    }
    return kernel;
  }
};

// The tensors and numbers of one call, as an operator takes them; window 0 means no attention, no kernel no convolution.
struct Call {
  Tensor like;
  Field query, key, value;
  MaybeTensor position, rate, kernel, mixing;
  int64_t window, kernel_size = 0;
  Shape shape;
  bool is_double, channels_last;

  Call(const Tensor& q, const Tensor& k, const Tensor& v, int64_t size, int64_t stride)
      : like(q), query(heads_of(q, 0)), key(heads_of(k, 0)), value(heads_of(v, 0)), window(size) {
    for (const Tensor* other : {&k, &v}) {
      STD_TORCH_CHECK(other->scalar_type() == like.scalar_type(), "key and value must have query's dtype");
      for (int64_t axis = 0; axis < 5; ++axis)
        STD_TORCH_CHECK(other->size(axis) == like.size(axis), "key and value must have query's shape");
    }
    set_shape(like.size(1), stride);
  }

  Call(const Tensor& projections, const MaybeTensor& position_weight, const MaybeTensor& rate_attention,
       const Weights& weights, int64_t size, int64_t stride)
      : like(projections), query(heads_of(projections, 0)), key(heads_of(projections, projections.size(1) / 3)),
        value(heads_of(projections, projections.size(1) / 3 * 2)), position(position_weight), rate(rate_attention),
        window(size) {
    STD_TORCH_CHECK(like.size(1) % 3 == 0, "projections must have the shape (B, 3 N, D, H, W)");
    set_shape(like.size(1) / 3, stride);
    check_parameter(position, {shape.head_size, 2}, "position must be (D, 2)");
    STD_TORCH_CHECK(!position || position->is_contiguous(), "position must be contiguous");
    for (const MaybeTensor& number : {rate, weights.rate})
      STD_TORCH_CHECK(!number || (number->numel() == 1 && number->scalar_type() == compute_type(like)),
                      "rates are one element");
    kernel_size = weights.dep.size(3);
    const int64_t inputs = weights.fc ? weights.fc->size(0) : like.size(1);
    check_parameter(weights.dep, {shape.heads * shape.head_size, inputs, kernel_size, kernel_size},
                    "dep must be (C, P, k, k)");
    check_parameter(weights.fc, {inputs, like.size(1)}, "fc must be (P, 3 N)");
    STD_TORCH_CHECK(!weights.fc || weights.fc->is_contiguous(), "fc must be contiguous");
    kernel = weights.kernel(best_kernels(is_double));
    if (!weights.composed) mixing = weights.fc;
  }

  void set_shape(int64_t heads, int64_t stride) {
    STD_TORCH_CHECK(stride >= 1 && window >= 0 && (window == 0 || window % 2 == 1), "window must be odd, stride >= 1");
    shape = {like.size(0), heads, like.size(2), like.size(3), like.size(4), stride, 0, 0};
    shape.height_out = (shape.height + stride - 1) / stride;
    shape.width_out = (shape.width + stride - 1) / stride;
    is_double = like.scalar_type() == ScalarType::Double;
    channels_last = like.stride(2) == 1 && shape.head_size > 1 && shape.height * shape.width > 1;
  }

  void check_parameter(const MaybeTensor& tensor, const std::vector<int64_t>& sizes, const char* rule) const {
    if (!tensor) return;
    bool right = tensor->dim() == static_cast<int64_t>(sizes.size()) && tensor->scalar_type() == compute_type(like);
    for (size_t axis = 0; right && axis < sizes.size(); ++axis)
      right = tensor->size(static_cast<int64_t>(axis)) == sizes[axis];
    STD_TORCH_CHECK(right, rule, ", in the compute dtype");
  }

  // A map of 4 axes in the memory order of the input.
  Tensor empty_map(int64_t channels, int64_t height, int64_t width) const {
    Tensor map = torch::stable::empty({shape.batch, channels, height, width}, like.scalar_type(), std::nullopt,
                                      like.device(), std::nullopt,
                                      channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                                    : torch::headeronly::MemoryFormat::Contiguous);
    ask_for_large_pages(map);
    return map;
  }
};

// Channels [first, first + outer * inner) of a map of 4 axes, channel = outer index * inner + inner index.
Field channels_of(const Tensor& map, int64_t first, int64_t inner) {
  const size_t offset = static_cast<size_t>(first * map.stride(1)) * map.element_size();
  return {static_cast<char*>(map.mutable_data_ptr()) + offset,
          element_of(map),
          map.stride(0),
          inner * map.stride(1),
          map.stride(1),
          map.stride(2),
          map.stride(3)};
}

// linspace(-1, 1, size) in the compute type.
struct Locations {
  std::vector<double> doubles;
  std::vector<float> floats;

  explicit Locations(int64_t size) {
    for (int64_t i = 0; i < size; ++i) {
      const double step = size > 1 ? 2. / static_cast<double>(size - 1) : 0.;
      doubles.push_back(2 * i < size ? -1 + step * static_cast<double>(i)
                                     : 1 - step * static_cast<double>(size - 1 - i));
    }
    floats.assign(doubles.begin(), doubles.end());
  }
  const void* data(bool is_double) const {
    return is_double ? static_cast<const void*>(doubles.data()) : static_cast<const void*>(floats.data());
  }
};

Mix problem_of(const Call& call, const Tensor& output, const Locations& columns, const Locations& rows) {
  const Attention attention = {call.window, call.position ? call.position->const_data_ptr() : nullptr,
                               columns.data(call.is_double), rows.data(call.is_double), number_of(call.rate)};
  const Convolution convolution = {call.kernel_size, call.mixing ? call.mixing->size(0) : 0,
                                   call.kernel ? call.kernel->const_data_ptr() : nullptr,
                                   call.mixing ? call.mixing->const_data_ptr() : nullptr};
  return {call.shape,
          call.query,
          call.key,
          call.value,
          channels_of(output, 0, call.shape.head_size),
          attention,
          convolution,
          torch::stable::get_num_threads()};
}

Tensor run_forward(const Call& call) {
  const Shape& shape = call.shape;
  Tensor output = call.empty_map(shape.heads * shape.head_size, shape.height_out, shape.width_out);
  if (output.numel() == 0) return output;
  const Kernels& kernels = best_kernels(call.is_double);
  const Locations columns(shape.width), rows(shape.height);
  const Mix problem = problem_of(call, output, columns, rows);
  torch::stable::parallel_for(0, kernels.forward_tasks(problem), 1,
                              [&](int64_t first, int64_t last) { kernels.forward(problem, first, last); });
  return output;
}

Tensor local_attention(const Tensor& query, const Tensor& key, const Tensor& value, int64_t window, int64_t stride) {
  return run_forward(Call(query, key, value, window, stride));
}

Tensor mix(const Tensor& projections, const MaybeTensor& position, const MaybeTensor& rate, const MaybeTensor& fc,
           const Tensor& dep, const MaybeTensor& rate_convolution, bool composed, int64_t window, int64_t stride) {
  return run_forward(Call(projections, position, rate, Weights(fc, dep, rate_convolution, composed), window, stride));
}

// Of the projections as one (B, 3 C, H, W) map, of position and rate as (2 D + 1), of the kernel and mixing that were
// computed with.
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

std::vector<int64_t> sizes_of(const MaybeTensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t axis = 0; tensor && axis < tensor->dim(); ++axis) sizes.push_back(tensor->size(axis));
  return tensor ? sizes : std::vector<int64_t>{0};
}

// The sum over the first axis in its order, whatever the number of threads.
Tensor sum_first(const Tensor& tensor, const std::vector<int64_t>& sizes) {
  Tensor total = empty_parameter(tensor, sizes);
  const int64_t size = total.numel(), count = size > 0 ? tensor.numel() / size : 0;
  with_data(total, [&](auto* to) {
    const auto* from = static_cast<decltype(to)>(tensor.mutable_data_ptr());
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < size; ++j) to[j] += from[i * size + j];
  });
  return total;
}

Gradients run_backward(const Call& call, const Tensor& output_gradient) {
  const Shape& shape = call.shape;
  STD_TORCH_CHECK(output_gradient.dim() == 4 && output_gradient.scalar_type() == call.like.scalar_type() &&
                      output_gradient.size(0) == shape.batch &&
                      output_gradient.size(1) == shape.heads * shape.head_size &&
                      output_gradient.size(2) == shape.height_out && output_gradient.size(3) == shape.width_out,
                  "the output's gradient must be (B, C, H', W') in the dtype of the output");
  const int64_t channels = shape.heads * shape.head_size, small_size = 2 * shape.head_size + 1;
  const std::vector<int64_t> kernel_sizes = sizes_of(call.kernel), mixing_sizes = sizes_of(call.mixing);
  Tensor gradient = call.empty_map(3 * channels, shape.height, shape.width);
  if (gradient.numel() == 0)
    return {gradient, empty_parameter(gradient, {small_size}), empty_parameter(gradient, kernel_sizes),
            empty_parameter(gradient, mixing_sizes)};
  const Kernels& kernels = best_kernels(call.is_double);
  const Locations columns(shape.width), rows(shape.height);
  const Mix problem = problem_of(call, output_gradient, columns, rows);
  const BackwardWork work = kernels.backward_work(problem);
  auto parts = [&](int64_t count, std::vector<int64_t> sizes) {
    sizes.insert(sizes.begin(), count);
    return empty_parameter(gradient, sizes);
  };
  Tensor kernel = parts(work.slices, kernel_sizes), mixing = parts(work.slices, mixing_sizes);
  Tensor small = parts(work.items, {small_size});
  const MixGradient to = {channels_of(gradient, 0, shape.head_size),
                          channels_of(gradient, channels, shape.head_size),
                          channels_of(gradient, 2 * channels, shape.head_size),
                          kernel.mutable_data_ptr(),
                          mixing.mutable_data_ptr(),
                          small.mutable_data_ptr()};
  torch::stable::parallel_for(0, work.items, 1,
                              [&](int64_t first, int64_t last) { kernels.backward(problem, to, first, last); });
  return {gradient, sum_first(small, {small_size}), sum_first(kernel, kernel_sizes),
          sum_first(mixing, mixing_sizes)};
}

Tensor local_attention_backward(const Tensor& output_gradient, const Tensor& query, const Tensor& key,
                                const Tensor& value, int64_t window, int64_t stride) {
  return std::get<0>(run_backward(Call(query, key, value, window, stride), output_gradient));
}

// Gradients of fc, of dep and of the rate, given those of the kernel and mixing, which are theirs without composing.
std::tuple<Tensor, Tensor, Tensor> differentiate(const Weights& weights, const Tensor& kernel, Tensor mixing) {
  Tensor dep = torch::stable::empty(sizes_of(weights.dep), kernel.scalar_type(), std::nullopt, kernel.device(),
                                    std::nullopt, format_of(weights.dep));
  const double factor = number_of(weights.rate);
  double slope = 0;
  if (weights.composes()) {
    const Kernels& kernels = best_kernels(kernel.scalar_type() == ScalarType::Double);
    const Composition composition = weights.composition();
    const std::vector<int64_t> sizes = sizes_of(weights.fc);
    Tensor shares = empty_parameter(kernel, {composition.parts, sizes[0], sizes[1]});
    torch::stable::parallel_for(0, composition.parts, 1, [&](int64_t first, int64_t last) {
      kernels.compose_backward(composition, kernel.const_data_ptr(), dep.mutable_data_ptr(), shares.mutable_data_ptr(),
                               first, last);
    });
    mixing = sum_first(shares, sizes);
    slope = inner_product(mixing, *weights.fc);
    scale(mixing, factor);
  } else {
    slope = inner_product(kernel, torch::stable::contiguous(weights.dep));
    torch::stable::copy_(dep, kernel);
    scale(dep, factor);
  }
  Tensor rate = empty_parameter(kernel, {weights.rate ? 1 : 0});
  if (weights.rate) with_data(rate, [&](auto* to) { *to = slope; });
  return {mixing, dep, rate};
}

// Gradients of the projections, of position and rate, of fc, of dep and of the convolution's rate.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> mix_backward(
    const Tensor& output_gradient, const Tensor& projections, const MaybeTensor& position, const MaybeTensor& rate,
    const MaybeTensor& fc, const Tensor& dep, const MaybeTensor& rate_convolution, bool composed, int64_t window,
    int64_t stride) {
  const Weights weights(fc, dep, rate_convolution, composed);
  const auto [gradient, small, kernel, mixing] =
      run_backward(Call(projections, position, rate, weights, window, stride), output_gradient);
  return std::tuple_cat(std::tuple(gradient, small), differentiate(weights, kernel, mixing));
}

}  // namespace
}  // namespace acmix

STABLE_TORCH_LIBRARY(acmix, library) {
  library.def("local_attention(Tensor query, Tensor key, Tensor value, int window, int stride) -> Tensor");
  library.def(
      "local_attention_backward(Tensor output_gradient, Tensor query, Tensor key, Tensor value, int window, int stride) "
      "-> Tensor");
  library.def(
      "mix(Tensor projections, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, Tensor? rate_convolution, "
      "bool composed, int window, int stride) -> Tensor");
  library.def(
      "mix_backward(Tensor output_gradient, Tensor projections, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, "
      "Tensor? rate_convolution, bool composed, int window, int stride) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(acmix, CPU, library) {
  library.impl("local_attention", TORCH_BOX(&acmix::local_attention));
  library.impl("local_attention_backward", TORCH_BOX(&acmix::local_attention_backward));
  library.impl("mix", TORCH_BOX(&acmix::mix));
  library.impl("mix_backward", TORCH_BOX(&acmix::mix_backward));
}
