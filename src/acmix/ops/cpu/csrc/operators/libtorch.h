// What the operators call of LibTorch's stable C interface, declared here, so that they compile without torch and load
// with any from 2.11 on. tests/ops/test_libtorch.py holds the declarations against the headers of the torch that is
// installed.
#pragma once

#include <cstddef>
#include <cstdint>

struct AtenTensorOpaque;
struct StableListOpaque;
class TorchLibraryOpaque;

extern "C" {
// Values on the stack of a boxed call: a number, a tensor's handle, a list's, or a pointer to the value of an optional.
using StableIValue = uint64_t;

int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_float64();
int32_t aoti_torch_dtype_float16();
int32_t aoti_torch_dtype_bfloat16();

// All others return 0, or 1 where they fail.
int32_t aoti_torch_new_tensor_handle(AtenTensorOpaque* tensor, AtenTensorOpaque** result);
int32_t aoti_torch_delete_tensor_object(AtenTensorOpaque* tensor);
int32_t aoti_torch_get_dtype(AtenTensorOpaque* tensor, int32_t* result);
int32_t aoti_torch_get_dim(AtenTensorOpaque* tensor, int64_t* result);
int32_t aoti_torch_get_numel(AtenTensorOpaque* tensor, int64_t* result);
int32_t aoti_torch_get_size(AtenTensorOpaque* tensor, int64_t axis, int64_t* result);
int32_t aoti_torch_get_stride(AtenTensorOpaque* tensor, int64_t axis, int64_t* result);
int32_t aoti_torch_is_contiguous(AtenTensorOpaque* tensor, bool* result);
int32_t torch_get_const_data_ptr(AtenTensorOpaque* tensor, const void** result);
int32_t torch_get_mutable_data_ptr(AtenTensorOpaque* tensor, void** result);
int32_t aoti_torch_copy_(AtenTensorOpaque* to, AtenTensorOpaque* from, int32_t non_blocking);
int32_t aoti_torch_zero_(AtenTensorOpaque* tensor);

int32_t torch_new_list_reserve_size(size_t size, StableListOpaque** result);
int32_t torch_list_push_back(StableListOpaque* list, StableIValue item);
int32_t torch_call_dispatcher(const char* name, const char* overload, StableIValue* stack, uint64_t built_for);

int32_t torch_get_num_threads(uint32_t* result);
int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain, void (*task)(int64_t, int64_t, void*),
                           void* context);

int32_t aoti_torch_library_init_def(const char* name, const char* file, uint32_t line, TorchLibraryOpaque** result);
int32_t aoti_torch_library_init_impl(const char* name, const char* key, const char* file, uint32_t line,
                                     TorchLibraryOpaque** result);
int32_t aoti_torch_library_def(TorchLibraryOpaque* library, const char* schema);
int32_t torch_library_impl(TorchLibraryOpaque* library, const char* name,
                           void (*kernel)(StableIValue*, uint64_t, uint64_t), uint64_t built_for);

// Why the last call of this thread failed; there since torch 2.13, null before, which writes reasons to stderr.
__attribute__((weak)) const char* torch_exception_get_what_without_backtrace();
}
