// The builds of kernels.cpp that this library holds.
#pragma once

#include "problem.h"

namespace acmix {

namespace baseline {
const Kernels& kernels(bool is_double);
}
#if defined(__x86_64__)
namespace avx2 {
const Kernels& kernels(bool is_double);
}
namespace avx512 {
const Kernels& kernels(bool is_double);
}
namespace avx512_bf16 {
const Kernels& kernels(bool is_double);
}
namespace amx {
const Kernels& kernels(bool is_double);
}
#endif

// Those that run, see dispatch.cpp.
const Kernels& best_kernels(bool is_double);

}  // namespace acmix
