// By which products stage I is differentiated, and its weights as the products of either pass read them.
#pragma once

#include "stage_one/stage_one.h"

#if defined(__AMX_BF16__)
#include "backward/projection_tiles.h"
#else
#include "backward/projection.h"
#endif

namespace acmix::ACMIX_ISA {

#if defined(__AMX_BF16__)
template <class T>
using ProjectionGradientScratch = std::conditional_t<in_tiles<T>, TileProjectionGradient, VectorProjectionGradient<T>>;
#else
template <class T>
using ProjectionGradientScratch = VectorProjectionGradient<T>;
#endif

// Of which only the sizes are asked.
template <class T>
static ProjectionGradientScratch<T> measure_scratch(const Mix& problem, const BackwardLayout<T>& layout) {
  Arena<T> arena;
  return ProjectionGradientScratch<T>(problem, layout, arena);
}

template <class T>
static PackingWork packing_work(const Mix& problem, bool backward) {
  const BackwardLayout<T> layout(problem);
  return packing_of(problem, layout, measure_scratch(problem, layout), backward);
}

template <class T>
static void pack_weights(const Mix& problem, bool backward, void* packed, int64_t first, int64_t last) {
  const BackwardLayout<T> layout(problem);
  const ProjectionGradientScratch<T> scratch = measure_scratch(problem, layout);
  for (int64_t part = first; part < last; ++part)
    pack_part(problem, layout, scratch, backward, static_cast<T*>(packed), part);
}

// Of the gradients of weight and bias, the registers [first, last) of the projections of all passes.
template <class T>
static void sum_weights(const Mix& problem, const void* shares, void* weight, void* bias, int64_t first, int64_t last) {
  const BackwardLayout<T> layout(problem);
  sum_shares(problem, layout, measure_scratch(problem, layout), static_cast<const T*>(shares), static_cast<T*>(weight),
             static_cast<T*>(bias), first, last);
}

}  // namespace acmix::ACMIX_ISA
