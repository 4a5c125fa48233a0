// Calls of the compiled kernels out of a file, without torch: the part of LibTorch that they use, written anew.
//
// A file holds whole numbers of 64 bits and bytes. Calls: their count, then of each its name and arguments. An
// argument: a letter (T tensor, O tensor that may be missing, N one that is, I number), then its content. A tensor:
// dtype, axes, sizes, strides, bytes of its storage, from its first element on. Results: of each call their count, then
// tensors, dense.
#include <bit>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "operators/libtorch.h"

using Numbers = std::vector<int64_t>;
using Boxed = void (*)(StableIValue*, uint64_t, uint64_t);

constexpr int64_t element_sizes[] = {4, 8, 2, 2};  // float32, float64, float16, bfloat16

struct AtenTensorOpaque {
  int32_t dtype;
  Numbers sizes, strides;
  std::shared_ptr<std::vector<char>> storage;

  int64_t numel() const { return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>()); }
  int64_t element_size() const { return element_sizes[dtype]; }

  // Every element in the order of the axes.
  template <class F>
  void each(const F& f) const {
    for (int64_t index = 0; index < numel(); ++index) {
      int64_t rest = index, place = 0;
      for (size_t axis = sizes.size(); axis-- > 0; rest /= sizes[axis]) place += rest % sizes[axis] * strides[axis];
      f(storage->data() + place * element_size());
    }
  }
};

struct StableListOpaque {
  Numbers numbers;
};

std::map<std::string, Boxed>& functions() {
  static std::map<std::string, Boxed> known;
  return known;
}

template <class T>
int32_t give(T* result, T value) {
  *result = value;
  return 0;
}

template <class T>
T read_as(const char* element) {
  T value;
  std::memcpy(&value, element, sizeof value);
  return value;
}

// An element in another dtype; halves to even, and float64 becomes 16 bits by way of float32, as in PyTorch.
void convert(const char* from, int32_t dtype, char* to, int32_t other) {
  const float narrow = dtype == 0   ? read_as<float>(from)
                       : dtype == 1 ? static_cast<float>(read_as<double>(from))
                       : dtype == 2 ? static_cast<float>(read_as<__fp16>(from))
                                    : std::bit_cast<float>(uint32_t{read_as<uint16_t>(from)} << 16);
  const auto put = [to](auto value) { std::memcpy(to, &value, sizeof value); };
  const auto bits = std::bit_cast<uint32_t>(narrow);
  if (dtype == other)
    std::memcpy(to, from, element_sizes[dtype]);
  else if (other == 0)
    put(narrow);
  else if (other == 1)
    put(static_cast<double>(narrow));
  else if (other == 2)
    put(static_cast<__fp16>(narrow));
  else
    put(static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}

int32_t fail(const char* what) {
  std::cerr << what << std::endl;
  return 1;
}

extern "C" {
int32_t aoti_torch_dtype_float32() { return 0; }
int32_t aoti_torch_dtype_float64() { return 1; }
int32_t aoti_torch_dtype_float16() { return 2; }
int32_t aoti_torch_dtype_bfloat16() { return 3; }

int32_t aoti_torch_new_tensor_handle(AtenTensorOpaque* tensor, AtenTensorOpaque** result) {
  return give(result, new AtenTensorOpaque(*tensor));
}
int32_t aoti_torch_delete_tensor_object(AtenTensorOpaque* tensor) {
  delete tensor;
  return 0;
}
int32_t aoti_torch_get_dtype(AtenTensorOpaque* tensor, int32_t* result) { return give(result, tensor->dtype); }
int32_t aoti_torch_get_dim(AtenTensorOpaque* tensor, int64_t* result) {
  return give(result, static_cast<int64_t>(tensor->sizes.size()));
}
int32_t aoti_torch_get_numel(AtenTensorOpaque* tensor, int64_t* result) { return give(result, tensor->numel()); }
int32_t aoti_torch_get_size(AtenTensorOpaque* tensor, int64_t axis, int64_t* result) {
  return give(result, tensor->sizes.at(axis));
}
int32_t aoti_torch_get_stride(AtenTensorOpaque* tensor, int64_t axis, int64_t* result) {
  return give(result, tensor->strides.at(axis));
}
int32_t aoti_torch_is_contiguous(AtenTensorOpaque* tensor, bool* result) {
  int64_t expected = 1;
  *result = true;
  for (size_t axis = tensor->sizes.size(); axis-- > 0; expected *= tensor->sizes[axis])
    *result = *result && (tensor->sizes[axis] == 1 || tensor->strides[axis] == expected);
  return 0;
}
int32_t torch_get_const_data_ptr(AtenTensorOpaque* tensor, const void** result) {
  return give(result, static_cast<const void*>(tensor->storage->data()));
}
int32_t torch_get_mutable_data_ptr(AtenTensorOpaque* tensor, void** result) {
  return give(result, static_cast<void*>(tensor->storage->data()));
}
int32_t aoti_torch_copy_(AtenTensorOpaque* to, AtenTensorOpaque* from, int32_t) {
  if (to->sizes != from->sizes) return fail("a copy that the kernels do not make");
  std::vector<const char*> elements;
  from->each([&](const char* element) { elements.push_back(element); });
  size_t index = 0;
  to->each([&](char* element) { convert(elements[index++], from->dtype, element, to->dtype); });
  return 0;
}
int32_t aoti_torch_zero_(AtenTensorOpaque* tensor) {
  tensor->each([&](char* element) { std::memset(element, 0, tensor->element_size()); });
  return 0;
}

int32_t torch_new_list_reserve_size(size_t, StableListOpaque** result) { return give(result, new StableListOpaque); }
int32_t torch_list_push_back(StableListOpaque* list, StableIValue item) {
  list->numbers.push_back(static_cast<int64_t>(item));
  return 0;
}

// Memory is all ones: NaN in every dtype, as PyTorch fills it where it is asked to be deterministic.
int32_t torch_call_dispatcher(const char* name, const char*, StableIValue* stack, uint64_t) {
  if (std::strcmp(name, "aten::new_empty_strided") != 0) return fail(name);
  std::unique_ptr<AtenTensorOpaque> like(reinterpret_cast<AtenTensorOpaque*>(stack[0]));
  std::unique_ptr<StableListOpaque> sizes(reinterpret_cast<StableListOpaque*>(stack[1]));
  std::unique_ptr<StableListOpaque> strides(reinterpret_cast<StableListOpaque*>(stack[2]));
  std::unique_ptr<StableIValue> dtype(reinterpret_cast<StableIValue*>(stack[3]));
  auto* made = new AtenTensorOpaque{static_cast<int32_t>(*dtype), sizes->numbers, strides->numbers, {}};
  made->storage = std::make_shared<std::vector<char>>(made->numel() * made->element_size(), '\xff');
  stack[0] = reinterpret_cast<StableIValue>(made);
  return 0;
}

int32_t torch_get_num_threads(uint32_t* result) { return give(result, uint32_t{2}); }
int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t, void (*task)(int64_t, int64_t, void*), void* context) {
  const int64_t middle = begin + (end - begin) / 2;
  std::thread other([&] { task(middle, end, context); });
  if (begin < middle) task(begin, middle, context);
  other.join();
  return 0;
}

int32_t aoti_torch_library_init_def(const char*, const char*, uint32_t, TorchLibraryOpaque**) { return 0; }
int32_t aoti_torch_library_init_impl(const char*, const char*, const char*, uint32_t, TorchLibraryOpaque**) {
  return 0;
}
int32_t aoti_torch_library_def(TorchLibraryOpaque*, const char*) { return 0; }
int32_t torch_library_impl(TorchLibraryOpaque*, const char* name, Boxed kernel, uint64_t) {
  functions()[name] = kernel;
  return 0;
}
}

int64_t read_number(std::istream& file) {
  int64_t number;
  if (!file.read(reinterpret_cast<char*>(&number), sizeof number))
    throw std::runtime_error("the file of calls is cut off");
  return number;
}

Numbers read_numbers(std::istream& file, int64_t count) {
  Numbers numbers(count);
  for (int64_t& number : numbers) number = read_number(file);
  return numbers;
}

AtenTensorOpaque* read_tensor(std::istream& file) {
  auto* tensor = new AtenTensorOpaque{static_cast<int32_t>(read_number(file)), {}, {}, {}};
  const int64_t axes = read_number(file);
  tensor->sizes = read_numbers(file, axes);
  tensor->strides = read_numbers(file, axes);
  tensor->storage = std::make_shared<std::vector<char>>(read_number(file));
  file.read(tensor->storage->data(), static_cast<std::streamsize>(tensor->storage->size()));
  return tensor;
}

StableIValue read_argument(std::istream& file) {
  switch (read_number(file)) {
    case 'T':
      return reinterpret_cast<StableIValue>(read_tensor(file));
    case 'O':
      return reinterpret_cast<StableIValue>(new StableIValue(reinterpret_cast<StableIValue>(read_tensor(file))));
    case 'N':
      return 0;
    case 'I':
      return static_cast<StableIValue>(read_number(file));
  }
  throw std::runtime_error("an argument is of no kind that there is");
}

void write_number(std::ostream& file, int64_t number) { file.write(reinterpret_cast<char*>(&number), sizeof number); }

void write_tensor(std::ostream& file, const AtenTensorOpaque& tensor) {
  write_number(file, tensor.dtype);
  write_number(file, static_cast<int64_t>(tensor.sizes.size()));
  for (int64_t size : tensor.sizes) write_number(file, size);
  tensor.each([&](const char* element) { file.write(element, tensor.element_size()); });
}

// Arguments: the file of calls, and that of results.
int main(int, char** arguments) try {
  std::ifstream calls(arguments[1], std::ios::binary);
  std::ofstream results(arguments[2], std::ios::binary);
  for (int64_t left = read_number(calls); left > 0; --left) {
    std::string name(read_number(calls), '\0');
    calls.read(name.data(), static_cast<std::streamsize>(name.size()));
    const int64_t inputs = read_number(calls), outputs = read_number(calls);
    std::vector<StableIValue> stack(std::max(inputs, outputs));
    for (int64_t input = 0; input < inputs; ++input) stack[input] = read_argument(calls);
    functions().at(name)(stack.data(), inputs, outputs);
    for (int64_t output = 0; output < outputs; ++output) {
      std::unique_ptr<AtenTensorOpaque> tensor(reinterpret_cast<AtenTensorOpaque*>(stack[output]));
      write_tensor(results, *tensor);
    }
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
