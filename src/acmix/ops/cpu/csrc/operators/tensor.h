// Tensors of LibTorch, its allocator and its threads.
#pragma once

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "operators/libtorch.h"
#include "problem.h"

namespace acmix {
namespace {

// The rules of calls are those of torch 2.11.
constexpr uint64_t built_for = (uint64_t{2} << 56) | (uint64_t{11} << 48);

// A rule that arguments keep.
inline void require(bool kept, const char* rule, const char* more = "") {
  if (!kept) throw std::runtime_error(std::string(rule) + more);
}

// Of a call of LibTorch.
inline void succeed(int32_t failed) {
  if (!failed) return;
  const char* reason =
      torch_exception_get_what_without_backtrace ? torch_exception_get_what_without_backtrace() : nullptr;
  throw std::runtime_error(reason ? reason : "PyTorch failed in a compiled kernel of acmix; its reason is on stderr");
}

inline int32_t dtype_of(Element element) {
  static const int32_t dtypes[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_float64(), aoti_torch_dtype_float16(),
                                   aoti_torch_dtype_bfloat16()};
  return dtypes[static_cast<size_t>(element)];
}

// Shares its memory with its copies.
class Tensor {
 public:
  explicit Tensor(AtenTensorOpaque* owned) : handle_(owned) {}
  Tensor(const Tensor& other) { succeed(aoti_torch_new_tensor_handle(other.handle_, &handle_)); }
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Tensor() {
    if (handle_) aoti_torch_delete_tensor_object(handle_);
  }
  AtenTensorOpaque* release() && { return std::exchange(handle_, nullptr); }

  int64_t dim() const { return ask<int64_t>(aoti_torch_get_dim); }
  int64_t numel() const { return ask<int64_t>(aoti_torch_get_numel); }
  bool is_contiguous() const { return ask<bool>(aoti_torch_is_contiguous); }
  const void* const_data_ptr() const { return ask<const void*>(torch_get_const_data_ptr); }
  void* mutable_data_ptr() const { return ask<void*>(torch_get_mutable_data_ptr); }
  int64_t size(int64_t axis) const { return ask<int64_t>(aoti_torch_get_size, axis); }
  int64_t stride(int64_t axis) const { return ask<int64_t>(aoti_torch_get_stride, axis); }

  Element element() const {
    const int32_t dtype = ask<int32_t>(aoti_torch_get_dtype);
    for (Element element : {Element::float32, Element::float64, Element::float16, Element::bfloat16})
      if (dtype == dtype_of(element)) return element;
    throw std::runtime_error("tensors must be float32, float64, float16 or bfloat16");
  }
  size_t element_size() const {
    const Element element = this->element();
    return element == Element::float64 ? 8 : element == Element::float32 ? 4 : 2;
  }

  void copy_from(const Tensor& other) const { succeed(aoti_torch_copy_(handle_, other.handle_, 0)); }
  void set_zero() const { succeed(aoti_torch_zero_(handle_)); }

  // Uninitialised, on the same device; sizes (B, C, H, W) with channels last.
  Tensor empty(const std::vector<int64_t>& sizes, Element element, bool channels_last = false) const {
    std::vector<int64_t> strides(sizes.size(), 1);
    if (channels_last) {
      strides = {sizes[1] * sizes[2] * sizes[3], 1, sizes[3] * sizes[1], sizes[1]};
    } else {
      for (size_t axis = sizes.size(); axis-- > 1;)
        strides[axis - 1] = strides[axis] * std::max<int64_t>(sizes[axis], 1);
    }
    // Through the dispatcher: memory is NaN where PyTorch is asked to be deterministic. The callee frees its arguments.
    StableIValue stack[] = {reinterpret_cast<StableIValue>(Tensor(*this).release()),
                            list_of(sizes),
                            list_of(strides),
                            reinterpret_cast<StableIValue>(new StableIValue(dtype_of(element))),
                            0,
                            0,
                            0};
    succeed(torch_call_dispatcher("aten::new_empty_strided", "", stack, built_for));
    return Tensor(reinterpret_cast<AtenTensorOpaque*>(stack[0]));
  }

 private:
  template <class Result, class Function, class... Arguments>
  Result ask(const Function& function, Arguments... arguments) const {
    Result result;
    succeed(function(handle_, arguments..., &result));
    return result;
  }
  static StableIValue list_of(const std::vector<int64_t>& numbers) {
    StableListOpaque* list;
    succeed(torch_new_list_reserve_size(numbers.size(), &list));
    for (int64_t number : numbers) succeed(torch_list_push_back(list, static_cast<StableIValue>(number)));
    return reinterpret_cast<StableIValue>(list);
  }

  AtenTensorOpaque* handle_;
};
using MaybeTensor = std::optional<Tensor>;

// Call f(first, last) for parts of [0, count), of at least `grain`, on PyTorch's threads.
template <class F>
void parallel_for(int64_t count, int64_t grain, const F& f) {
  succeed(torch_parallel_for(
      0, count, grain,
      [](int64_t first, int64_t last, void* context) { (*static_cast<const F*>(context))(first, last); },
      const_cast<void*>(static_cast<const void*>(&f))));
}

inline int64_t number_of_threads() {
  uint32_t threads;
  succeed(torch_get_num_threads(&threads));
  return threads;
}

}  // namespace
}  // namespace acmix
