// Stage I of bfloat16 where the instruction set multiplies pairs of them: neighbouring channels of the input, and the
// weights that they meet, share a lane.
#pragma once

#include <type_traits>

#include "layout/maps.h"
#include "products/product.h"

namespace acmix::ACMIX_ISA {

// Of the sum of a projection.
template <class T>
static inline int64_t count_terms(const Mix& problem) {
  return multiplies_pairs<T>(problem) ? ceil_divide(problem.projection.inputs, 2) : problem.projection.inputs;
}

// load_pixels, a register for each pair of channels; the last one of an odd number is beside a zero.
template <class T, bool rectified, class E>
static void load_pairs(const E* const* lane, int64_t channels, int64_t ahead, T* cells, int64_t pitch) {
  if constexpr (std::is_same_v<E, Brain>) {
    const BrainPair* pairs[lanes<T>];
    for (int i = 0; i < lanes<T>; ++i) pairs[i] = reinterpret_cast<const BrainPair*>(lane[i]);
    load_pixels<T, rectified>(pairs, channels / 2, ahead / 2, cells, pitch);
    if (channels % 2 == 0) return;
    T* last = cells + channels / 2 * pitch;
    for (int i = 0; i < lanes<T>; ++i)
      last[i] = widen<T>(BrainPair{lane[i] ? lane[i][channels - 1] : Brain{}, Brain{}});
    if constexpr (rectified) store(last, rectify<T, BrainPair>(load(last)));
  }
}

// Pairs of the numbers of channels j and j + 1, zeros beside the last one of an odd number; channel(j) are those of
// one.
template <class T, class F>
static inline Vector<T> pair_channels(int64_t j, int64_t channels, const F& channel) {
  if constexpr (in_pairs<T>)
    return join_pairs(channel(j), j + 1 < channels ? channel(j + 1) : Vector<T>{});
  else
    return Vector<T>{};
}

// One or two runs of numbers, `pitch` apart, of no more than a register, as pairs; whole registers are read.
template <class T>
static inline void pair_run(const T* from, int64_t pitch, int64_t count, int64_t size, T* to) {
  auto run = [&](int64_t j) { return load(from + j * pitch); };
  store_lanes(to, pair_channels<T>(0, count, run), 0, size);
}

// Whether the weight has to be packed: rows of an even number of bfloat16 are rows of pairs.
template <class T>
static inline bool packs_pairs(const Mix& problem) {
  const Projection& projection = problem.projection;
  return multiplies_pairs<T>(problem) && (projection.weight_element != Element::bfloat16 || projection.inputs % 2);
}

// Rows [first, last) of the weight as rows of pairs.
template <class T>
static void pack_pairs(const Mix& problem, T* packed, int64_t first, int64_t last) {
  if constexpr (in_pairs<T>) {
    const int64_t inputs = problem.projection.inputs, pairs = ceil_divide(inputs, 2);
    const void* weight = problem.projection.weight;
    for (int64_t row = first; row < last; ++row) {
      Brain* to = reinterpret_cast<Brain*>(packed + row * pairs);
      if (problem.projection.weight_element == Element::bfloat16) {
        std::memcpy(to, static_cast<const Brain*>(weight) + row * inputs, static_cast<size_t>(inputs) * sizeof(Brain));
      } else {
        const T* from = static_cast<const T*>(weight) + row * inputs;
        for (int64_t k = 0; k < inputs; k += lanes<T>)
          store_some<T>(to + k, load_some<T>(from + k, inputs - k), inputs - k);
      }
      if (inputs % 2) to[inputs] = {};
    }
  }
}

}  // namespace acmix::ACMIX_ISA
