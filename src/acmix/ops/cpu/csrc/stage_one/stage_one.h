// By which products stage I is computed: of vectors, or in tiles where the instruction set has them.
#pragma once

#if defined(__AMX_BF16__)
#include <type_traits>

#include "stage_one/projection_tiles.h"
#else
#include "stage_one/projection.h"
#endif

namespace acmix::ACMIX_ISA {

// Product state is what a thread needs while it computes products.
#if defined(__AMX_BF16__)
template <class T>
using ProjectionScratch = std::conditional_t<in_tiles<T>, TileProjection, VectorProjection<T>>;
using ProductState = TileState;
#else
template <class T>
using ProjectionScratch = VectorProjection<T>;
struct ProductState {};
#endif

}  // namespace acmix::ACMIX_ISA
