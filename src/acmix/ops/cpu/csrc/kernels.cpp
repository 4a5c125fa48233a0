// The kernels of one instruction set; compiled once for each with -DACMIX_ISA=name and its flags.
#include "kernels.h"

#include "backward/backward.h"
#include "forward/forward.h"
#include "forward/pointwise.h"
#include "stage_two/composition.h"

namespace acmix::ACMIX_ISA {

template <class T>
static constexpr Kernels table = {in_pairs<T>,          packing_work<T>,    pack_weights<T>,    forward_tasks<T>,
                                  forward<T>,           backward_work<T>,   backward<T>,        sum_weights<T>,
                                  pointwise_packing<T>, pack_pointwise<T>,  pointwise_tasks<T>, convolve_pointwise<T>,
                                  compose<T>,           compose_backward<T>};

const Kernels& kernels(bool is_double) { return is_double ? table<double> : table<float>; }

}  // namespace acmix::ACMIX_ISA
