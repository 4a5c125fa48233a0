// Tensors as the kernels read them: fields, numbers, memory.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "operators/tensor.h"

namespace acmix {
namespace {

Element compute_type(const Tensor& tensor) {
  return tensor.element() == Element::float64 ? Element::float64 : Element::float32;
}

// Heads [first, first + N) of a tensor of shape (B, heads, D, H, W).
Field heads_of(const Tensor& tensor, int64_t first) {
  require(tensor.dim() == 5, "maps must have the shape (B, heads, D, H, W)");
  const size_t offset = static_cast<size_t>(first * tensor.stride(1)) * tensor.element_size();
  return {static_cast<char*>(tensor.mutable_data_ptr()) + offset,
          tensor.element(),
          tensor.stride(0),
          tensor.stride(1),
          tensor.stride(2),
          tensor.stride(3),
          tensor.stride(4)};
}

// Large tensors are mapped anew in every call, and others where glibc has returned the end of its heap to the system;
// their pages are cleared as they are first written: in pages of 4 KiB that takes three times as long as the writing
// does, in pages of 2 MiB a third of that.
void ask_for_large_pages(const Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // What is smaller holds hardly a large page.
  constexpr uintptr_t least = 4 << 20, page = 2 << 20;
  const uintptr_t size = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (size < least) return;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t first = (data + page - 1) / page * page, last = (data + size) / page * page;
  // A system without large pages declines, and no harm is done.
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

Tensor empty_parameter(const Tensor& like, const std::vector<int64_t>& sizes) {
  Tensor tensor = like.empty(sizes, compute_type(like));
  tensor.set_zero();
  return tensor;
}

double number_of(const MaybeTensor& rate) {
  if (!rate) return 1;
  return rate->element() == Element::float64 ? *static_cast<const double*>(rate->const_data_ptr())
                                             : *static_cast<const float*>(rate->const_data_ptr());
}

// Call f with the tensor's data as a pointer to its type, float or double.
template <class F>
void with_data(const Tensor& tensor, const F& f) {
  if (tensor.element() == Element::float64)
    f(static_cast<double*>(tensor.mutable_data_ptr()));
  else
    f(static_cast<float*>(tensor.mutable_data_ptr()));
}

std::vector<int64_t> sizes_of(const Tensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) sizes.push_back(tensor.size(axis));
  return sizes;
}

// Networks with channels last have such kernels, too.
bool has_channels_last(const Tensor& dep) {
  if (dep.dim() != 4) return false;
  const bool last = dep.stride(1) == 1 && dep.stride(3) == dep.size(1) && dep.stride(2) == dep.size(3) * dep.size(1) &&
                    dep.stride(0) == dep.size(2) * dep.stride(2);
  return last && !dep.is_contiguous();
}

// The same numbers in another type, in the order of memory that they had.
Tensor in_type(Element element, const Tensor& tensor) {
  if (tensor.element() == element) return tensor;
  Tensor other = tensor.empty(sizes_of(tensor), element, has_channels_last(tensor));
  other.copy_from(tensor);
  return other;
}
MaybeTensor in_type(Element element, const MaybeTensor& tensor) {
  return tensor ? MaybeTensor(in_type(element, *tensor)) : std::nullopt;
}

Tensor densely(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  Tensor dense = tensor.empty(sizes_of(tensor), tensor.element());
  dense.copy_from(tensor);
  return dense;
}
MaybeTensor densely(const MaybeTensor& tensor) { return tensor ? MaybeTensor(densely(*tensor)) : std::nullopt; }

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

// Channels [first, first + outer * inner) of a map of 4 axes, channel = outer index * inner + inner index.
Field channels_of(const Tensor& map, int64_t first, int64_t inner) {
  const size_t offset = static_cast<size_t>(first * map.stride(1)) * map.element_size();
  return {static_cast<char*>(map.mutable_data_ptr()) + offset,
          map.element(),
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

}  // namespace
}  // namespace acmix
