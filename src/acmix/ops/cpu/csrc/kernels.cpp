// The kernels of one instruction set; compiled once for each with -DACMIX_ISA=name and its flags.
#include "backward/backward.h"
#include "forward/first.h"
#include "forward/forward.h"
#include "kernels.h"
#include "stage_two/composition.h"

namespace acmix::ACMIX_ISA {

template <class T>
static constexpr Kernels table = {
    in_pairs<T>,      packing_work<T>, pack_weights<T>, first_tasks<T>, first<T>,   forward_tasks<T>, forward<T>,
    backward_work<T>, backward<T>,     sum_weights<T>,  compose<T>,     compose_backward<T>};

const Kernels& kernels(bool is_double) { return is_double ? table<double> : table<float>; }

}  // namespace acmix::ACMIX_ISA
