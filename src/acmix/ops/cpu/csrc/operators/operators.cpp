// The operators, and their registration with PyTorch.
#include "operators/call.h"
#include "operators/library.h"
#include "operators/pointwise.h"
#include "operators/shares.h"

namespace acmix {
namespace {

// Let `problem` point to the weights of stage I as products read them.
void pack_weights(const Call& call, const Kernels& kernels, bool backward, Mix& problem) {
  const PackingWork work = call.projections ? kernels.packing_work(problem, backward) : PackingWork{};
  if (!work.numbers) return;
  const size_t size = call.is_double ? sizeof(double) : sizeof(float);
  void* packed = workspace(static_cast<size_t>(work.numbers) * size, Use::weights);
  parallel_for(work.parts, 1,
               [&](int64_t first, int64_t last) { kernels.pack_weights(problem, backward, packed, first, last); });
  problem.projection.packed = packed;
}

Tensor run_forward(const Call& call) {
  const Shape& shape = call.shape;
  Tensor output = call.empty_map(shape.heads * shape.head_size, shape.height_out, shape.width_out);
  if (output.numel() == 0) return output;
  const Kernels& kernels = best_kernels(call.is_double);
  const Locations columns(shape.width), rows(shape.height);
  Mix problem = problem_of(call, output, columns, rows);
  pack_weights(call, kernels, false, problem);
  parallel_for(kernels.forward_tasks(problem), 1,
               [&](int64_t first, int64_t last) { kernels.forward(problem, first, last); });
  return output;
}

Tensor local_attention(const Tensor& query, const Tensor& key, const Tensor& value, int64_t window, int64_t stride) {
  return run_forward(Call(query, key, value, window, stride));
}

Tensor mix(const Tensor& projections, const MaybeTensor& position, const MaybeTensor& rate, const MaybeTensor& fc,
           const Tensor& dep, const MaybeTensor& rate_convolution, bool composed, int64_t window, int64_t stride) {
  return run_forward(Call(projections,
                          {position, rate, Weights(compute_type(projections), fc, dep, rate_convolution, composed)},
                          window, stride));
}

Tensor project_and_mix(const Tensor& input, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& position,
                       const MaybeTensor& rate, const MaybeTensor& fc, const Tensor& dep,
                       const MaybeTensor& rate_convolution, bool composed, int64_t window, int64_t stride,
                       int64_t heads) {
  const Parameters parameters = {position, rate, Weights(compute_type(input), fc, dep, rate_convolution, composed)};
  return run_forward(Call(input, {weight, bias, heads}, parameters, window, stride));
}

Tensor infer(const Tensor& input, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& position,
             const MaybeTensor& rate, const MaybeTensor& fc, const Tensor& dep, const MaybeTensor& rate_convolution,
             bool composed, int64_t window, int64_t stride, int64_t heads, bool rectified_input,
             const MaybeTensor& output_bias, bool rectified, const MaybeTensor& first_weight,
             const MaybeTensor& first_bias, const MaybeTensor& last_weight, const MaybeTensor& last_bias,
             const MaybeTensor& shortcut, const MaybeTensor& shortcut_weight, const MaybeTensor& shortcut_bias,
             bool sum_rectified) {
  const Parameters parameters = {position, rate, Weights(compute_type(input), fc, dep, rate_convolution, composed)};
  require(last_weight || !shortcut, "a shortcut is added to a last layer");
  require(shortcut || !shortcut_weight, "a layer of the shortcut needs its input");
  // Each map is freed as soon as it is read.
  auto run_stages = [&](const Tensor& map) {
    Call call(map, {weight, bias, heads}, parameters, window, stride);
    call.take(Between{rectified_input && !first_weight, output_bias, rectified});
    // Of one channel, no map tells the order.
    call.channels_last = call.channels_last || last_weight;
    return run_forward(call);
  };
  const Tensor output =
      run_stages(first_weight ? convolve(input, {*first_weight, first_bias, std::nullopt, rectified_input}) : input);
  if (!last_weight) return output;
  if (!shortcut_weight) return convolve(output, {*last_weight, last_bias, shortcut, sum_rectified});
  const Tensor added = convolve(*shortcut, {*shortcut_weight, shortcut_bias, std::nullopt, false}, stride);
  return convolve(output, {*last_weight, last_bias, added, sum_rectified, true});
}

// Of the projections as one (B, 3 C, H, W) map or, where they are computed, of their input; of the projections' weight
// and bias, empty where it is not wanted; of the attention's position and rate and of the kernel and mixing that were
// computed with, empty where there is none.
struct Gradients {
  Tensor maps;
  MaybeTensor weight, bias;
  Tensor position, rate, kernel, mixing;
};

std::vector<int64_t> sizes_of(const MaybeTensor& tensor) {
  return tensor ? sizes_of(*tensor) : std::vector<int64_t>{0};
}

// Shares of the gradient of one map: the first becomes their sum.
void sum_maps(const std::vector<Tensor>& shares) {
  parallel_for(shares.front().numel(), 1 << 14, [&](int64_t first, int64_t last) {
    with_data(shares.front(), [&](auto* to) {
      for (size_t part = 1; part < shares.size(); ++part) {
        const auto* from = static_cast<decltype(to)>(shares[part].mutable_data_ptr());
        for (int64_t i = first; i < last; ++i) to[i] += from[i];
      }
    });
  });
}

// Of stage I, which gradients are asked for: those of the weight and of the bias together.
struct Wanted {
  bool input = true, weight = true;
};

Gradients run_backward(const Call& call, const Tensor& output_gradient, const Wanted& wanted) {
  const Shape& shape = call.shape;
  require(output_gradient.dim() == 4 && output_gradient.element() == call.like.element() &&
              output_gradient.size(0) == shape.batch && output_gradient.size(1) == shape.heads * shape.head_size &&
              output_gradient.size(2) == shape.height_out && output_gradient.size(3) == shape.width_out,
          "the output's gradient must be (B, C, H', W') in the dtype of the output");
  const int64_t channels = shape.heads * shape.head_size, small_size = 2 * shape.head_size + 1;
  const int64_t inputs = call.projections ? call.like.size(1) : 0;
  Tensor maps = wanted.input ? call.empty_map(call.projections ? inputs : 3 * channels, shape.height, shape.width)
                             : call.like.empty({0}, call.like.element());
  Gradients gradients = {maps, std::nullopt, std::nullopt, maps, maps, maps, maps};
  if (call.projections) {
    auto parameter = [&](const MaybeTensor& like) {
      return maps.empty(wanted.weight ? sizes_of(like) : std::vector<int64_t>{0}, compute_type(maps));
    };
    gradients.weight = parameter(call.projections->weight);
    gradients.bias = parameter(call.projections->bias);
  }
  if (call.like.numel() == 0) {
    if (gradients.weight) gradients.weight->set_zero();
    if (gradients.bias) gradients.bias->set_zero();
    gradients.position = empty_parameter(maps, sizes_of(call.position));
    gradients.rate = empty_parameter(maps, sizes_of(call.rate));
    gradients.kernel = empty_parameter(maps, sizes_of(call.kernel));
    gradients.mixing = empty_parameter(maps, sizes_of(call.mixing));
    return gradients;
  }
  const Kernels& kernels = best_kernels(call.is_double);
  const Locations columns(shape.width), rows(shape.height);
  Mix problem = problem_of(call, output_gradient, columns, rows);
  pack_weights(call, kernels, true, problem);
  const BackwardWork work = kernels.backward_work(problem);
  auto size_of_all = [](const MaybeTensor& tensor) { return tensor ? tensor->numel() : 0; };
  const Shares kernel(maps, work.slices, size_of_all(call.kernel)), mixing(maps, work.slices, size_of_all(call.mixing)),
      small(maps, work.items, small_size);
  MixGradient to = {};
  to.kernel = kernel.data();
  to.mixing = mixing.data();
  to.small = small.data();
  std::vector<Tensor> shares;
  std::vector<Field> fields;
  MaybeTensor shares_of_weights;
  if (call.projections) {
    // Several shares are in the compute type; the first is the map itself where it is, too.
    const bool inside = work.parts == 1 || maps.element() == compute_type(maps);
    for (int64_t part = 0; wanted.input && part < work.parts; ++part)
      shares.push_back(part == 0 && inside ? maps : call.empty_share(inputs, shape.height, shape.width));
    for (const Tensor& share : shares) fields.push_back(channels_of(share, 0, inputs));
    if (wanted.input) to.inputs = fields.data();
    if (wanted.weight) {
      shares_of_weights = maps.empty({work.slices, work.weights}, compute_type(maps));
      to.weights = shares_of_weights->mutable_data_ptr();
    }
  } else {
    to.query = channels_of(maps, 0, shape.head_size);
    to.key = channels_of(maps, channels, shape.head_size);
    to.value = channels_of(maps, 2 * channels, shape.head_size);
  }
  parallel_for(work.items, 1, [&](int64_t first, int64_t last) { kernels.backward(problem, to, first, last); });
  if (shares.size() > 1) sum_maps(shares);
  if (!shares.empty() && shares.front().const_data_ptr() != maps.const_data_ptr()) maps.copy_from(shares.front());
  gradients.position = small.sum(maps, sizes_of(call.position));
  gradients.rate = small.sum(maps, sizes_of(call.rate), small_size - 1);
  gradients.kernel = kernel.sum(maps, sizes_of(call.kernel));
  gradients.mixing = mixing.sum(maps, sizes_of(call.mixing));
  if (!to.weights) return gradients;
  void *weight = gradients.weight->mutable_data_ptr(),
       *bias = call.projections->bias ? gradients.bias->mutable_data_ptr() : nullptr;
  parallel_for(work.weight_registers, 1, [&](int64_t first, int64_t last) {
    kernels.sum_weights(problem, to.weights, weight, bias, first, last);
  });
  return gradients;
}

Tensor local_attention_backward(const Tensor& output_gradient, const Tensor& query, const Tensor& key,
                                const Tensor& value, int64_t window, int64_t stride) {
  return run_backward(Call(query, key, value, window, stride), output_gradient, {}).maps;
}

// In the type of the parameter, if there is one.
Tensor gradient_of(const MaybeTensor& parameter, const Tensor& gradient) {
  return parameter ? in_type(parameter->element(), gradient) : gradient;
}

// Gradients of fc, of dep and of the rate, given those of the kernel and mixing, which are theirs without composing.
std::tuple<Tensor, Tensor, Tensor> differentiate(const Weights& weights, const Tensor& kernel, Tensor mixing) {
  Tensor dep = kernel.empty(sizes_of(weights.dep), kernel.element(), has_channels_last(weights.dep));
  const double factor = number_of(weights.rate);
  double slope = 0;
  if (weights.composes()) {
    const Kernels& kernels = best_kernels(kernel.element() == Element::float64);
    const Composition composition = weights.composition();
    const Shares shares(kernel, composition.parts, weights.fc->numel());
    parallel_for(composition.parts, 1, [&](int64_t first, int64_t last) {
      kernels.compose_backward(composition, kernel.const_data_ptr(), dep.mutable_data_ptr(), shares.data(), first,
                               last);
    });
    mixing = shares.sum(kernel, sizes_of(weights.fc));
    slope = inner_product(mixing, *weights.fc);
    scale(mixing, factor);
  } else {
    dep.copy_from(kernel);
    if (weights.rate) {
      slope = inner_product(kernel, densely(weights.dep));
      scale(dep, factor);
    }
  }
  Tensor rate = kernel.empty(sizes_of(weights.rate), kernel.element());
  if (weights.rate) with_data(rate, [&](auto* to) { *to = slope; });
  return {mixing, dep, rate};
}

// Gradients of the projections, and of position, rate, fc, dep and the convolution's rate, empty where there is none.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> mix_backward(
    const Tensor& output_gradient, const Tensor& projections, const MaybeTensor& position, const MaybeTensor& rate,
    const MaybeTensor& fc, const Tensor& dep, const MaybeTensor& rate_convolution, bool composed, int64_t window,
    int64_t stride) {
  const Weights weights(compute_type(projections), fc, dep, rate_convolution, composed);
  const Gradients of = run_backward(Call(projections, {position, rate, weights}, window, stride), output_gradient, {});
  const auto [of_fc, of_dep, of_rate] = differentiate(weights, of.kernel, of.mixing);
  return {of.maps,
          gradient_of(position, of.position),
          gradient_of(rate, of.rate),
          gradient_of(fc, of_fc),
          gradient_of(dep, of_dep),
          gradient_of(rate_convolution, of_rate)};
}

// Gradients of the input, of weight and bias (empty where there is none, or none is wanted), and those of mix_backward.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> project_and_mix_backward(
    const Tensor& output_gradient, const Tensor& input, const Tensor& weight, const MaybeTensor& bias,
    const MaybeTensor& position, const MaybeTensor& rate, const MaybeTensor& fc, const Tensor& dep,
    const MaybeTensor& rate_convolution, bool composed, int64_t window, int64_t stride, int64_t heads,
    bool input_wanted, bool weight_wanted) {
  const Weights weights(compute_type(input), fc, dep, rate_convolution, composed);
  const Gradients of = run_backward(Call(input, {weight, bias, heads}, {position, rate, weights}, window, stride, true),
                                    output_gradient, {input_wanted, weight_wanted});
  const auto [of_fc, of_dep, of_rate] = differentiate(weights, of.kernel, of.mixing);
  return {of.maps,
          gradient_of(weight, *of.weight),
          gradient_of(bias, *of.bias),
          gradient_of(position, of.position),
          gradient_of(rate, of.rate),
          gradient_of(fc, of_fc),
          gradient_of(dep, of_dep),
          gradient_of(rate_convolution, of_rate)};
}

// When the library is loaded.
const bool registered = [] {
  Library library;
  library.add<&local_attention>("local_attention",
                                "(Tensor query, Tensor key, Tensor value, int window, int stride) -> Tensor");
  library.add<&local_attention_backward>(
      "local_attention_backward",
      "(Tensor output_gradient, Tensor query, Tensor key, Tensor value, int window, int stride) -> Tensor");
  library.add<&mix>(
      "mix",
      "(Tensor projections, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, Tensor? rate_convolution, "
      "bool composed, int window, int stride) -> Tensor");
  library.add<&project_and_mix>(
      "project_and_mix",
      "(Tensor input, Tensor weight, Tensor? bias, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, "
      "Tensor? rate_convolution, bool composed, int window, int stride, int heads) -> Tensor");
  library.add<&infer>(
      "infer",
      "(Tensor input, Tensor weight, Tensor? bias, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, "
      "Tensor? rate_convolution, bool composed, int window, int stride, int heads, bool rectified_input, "
      "Tensor? output_bias, bool rectified, Tensor? first_weight, Tensor? first_bias, Tensor? last_weight, "
      "Tensor? last_bias, Tensor? shortcut, Tensor? shortcut_weight, Tensor? shortcut_bias, bool sum_rectified) "
      "-> Tensor");
  library.add<&mix_backward>(
      "mix_backward",
      "(Tensor output_gradient, Tensor projections, Tensor? position, Tensor? rate, Tensor? fc, Tensor dep, "
      "Tensor? rate_convolution, bool composed, int window, int stride) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.add<&project_and_mix_backward>(
      "project_and_mix_backward",
      "(Tensor output_gradient, Tensor input, Tensor weight, Tensor? bias, Tensor? position, Tensor? rate, Tensor? fc, "
      "Tensor dep, Tensor? rate_convolution, bool composed, int window, int stride, int heads, bool input_wanted, "
      "bool weight_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  return true;
}();

}  // namespace
}  // namespace acmix
