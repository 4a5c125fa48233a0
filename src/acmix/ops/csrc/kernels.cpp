// The kernels of one instruction set; compiled once for each with -DACMIX_ISA=name and its flags.
#include "attention_backward.h"
#include "convolution_backward.h"
#include "kernels.h"
#include "mix.h"

namespace acmix::ACMIX_ISA {

template <class T>
static constexpr Kernels table = {mix_tasks<T>,          mix_forward<T>,        attention_tasks<T>, attention_backward<T>,
                                  convolution_tasks<T>,  convolution_slices<T>, convolution_backward<T>};

const Kernels& kernels(bool is_double) { return is_double ? table<double> : table<float>; }

}  // namespace acmix::ACMIX_ISA
