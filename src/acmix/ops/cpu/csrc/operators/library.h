// Operators in PyTorch's registry, under the name acmix.
#pragma once

#include <tuple>
#include <type_traits>

#include "operators/tensor.h"

namespace acmix {
namespace {

// An argument as a function takes it; what the stack held is the function's from then on.
template <class T>
T unbox(StableIValue value) {
  if constexpr (std::is_same_v<T, Tensor>) {
    return Tensor(reinterpret_cast<AtenTensorOpaque*>(value));
  } else if constexpr (std::is_same_v<T, MaybeTensor>) {
    auto* boxed = reinterpret_cast<StableIValue*>(value);
    if (!boxed) return std::nullopt;
    MaybeTensor tensor = unbox<Tensor>(*boxed);
    delete boxed;
    return tensor;
  } else {
    static_assert(std::is_same_v<T, int64_t> || std::is_same_v<T, bool>);
    return static_cast<T>(value);
  }
}

inline StableIValue box(Tensor tensor) { return reinterpret_cast<StableIValue>(std::move(tensor).release()); }

// A function of tensors and numbers that returns one tensor or a tuple of them, as the dispatcher calls it.
template <auto function>
struct Boxed;

template <class Result, class... Parameters, Result (*function)(Parameters...)>
struct Boxed<function> {
  static void call(StableIValue* stack, uint64_t inputs, uint64_t) {
    require(inputs == sizeof...(Parameters), "a schema and its function differ in their arguments");
    put(stack, std::apply(function, take(stack, std::index_sequence_for<Parameters...>())));
  }

 private:
  template <size_t... I>
  static auto take(const StableIValue* stack, std::index_sequence<I...>) {
    return std::tuple<std::remove_cvref_t<Parameters>...>{unbox<std::remove_cvref_t<Parameters>>(stack[I])...};
  }
  static void put(StableIValue* stack, Tensor tensor) { stack[0] = box(std::move(tensor)); }
  template <class... Tensors>
  static void put(StableIValue* stack, std::tuple<Tensors...> results) {
    std::apply([&](Tensors&... tensors) { ((*stack++ = box(std::move(tensors))), ...); }, results);
  }
};

// Names and functions stay until the process ends.
class Library {
 public:
  Library() {
    succeed(aoti_torch_library_init_def("acmix", __FILE__, __LINE__, &names_));
    succeed(aoti_torch_library_init_impl("acmix", "CPU", __FILE__, __LINE__, &functions_));
  }
  template <auto function>
  void add(const char* name, const std::string& schema) {
    succeed(aoti_torch_library_def(names_, (name + schema).c_str()));
    succeed(torch_library_impl(functions_, name, Boxed<function>::call, built_for));
  }

 private:
  TorchLibraryOpaque *names_, *functions_;
};

}  // namespace
}  // namespace acmix
