// Cells of windows that are cut out of registers instead of being loaded: loads of neighbouring cells cross cache
// lines, which takes two of the loads of a cycle, and shifts by so many lanes are instructions only when compiled as
// such.
#pragma once

#include <utility>

#include "layout/maps.h"

namespace acmix::ACMIX_ISA {

// Of the window of a row, if it has stride 1; and for how many channels at once three registers each are held.
constexpr int cut_window = 7, cut_radius = cut_window / 2, cut_channels = 4;

#if defined(__AVX512F__)
template <class T>
constexpr bool cuts_cells = sizeof(T) == sizeof(float);
#else
template <class T>
constexpr bool cuts_cells = false;
#endif

// Three registers in a row, and the one that begins `offset` cells from the second on.
template <class T>
struct Neighbours {
  Vector<T> before, here, behind;

  Neighbours() = default;
  explicit Neighbours(const T* at)
      : before(load_once(at - lanes<T>)), here(load_once(at)), behind(load_once(at + lanes<T>)) {}

  template <int offset>
  Vector<T> cell() const {
    static_assert(-lanes<T> < offset && offset < lanes<T>);
#if defined(__AVX512F__)
    // Without a mask, GCC warns of what it does not use.
    constexpr __mmask16 all = 0xffff;
    const __m512i low = (__m512i)(offset < 0 ? before : here), high = (__m512i)(offset < 0 ? here : behind);
    if constexpr (offset) return opaque((Vector<T>)_mm512_maskz_alignr_epi32(all, high, low, offset & (lanes<T> - 1)));
#endif
    return here;
  }
};

// f<0>(), ..., f<count - 1>().
template <int count, class F>
__attribute__((always_inline)) static inline void repeat(const F& f) {
  [&]<int... x>(std::integer_sequence<int, x...>)
      __attribute__((always_inline)) { (f.template operator()<x>(), ...); }(std::make_integer_sequence<int, count>());
}

// f<spacing>(), how far apart the cells of a row of a window are, where they are cut out, or f<0>().
template <class T, class F>
static inline void with_spacing(const MapLayout<T>& layout, const F& f) {
  if constexpr (cuts_cells<T>)
    if (layout.stride == 1 && layout.window == cut_window) {
      if (layout.interleave == 1) return f.template operator()<1>();
      if (layout.interleave == 2) return f.template operator()<2>();
      if (layout.interleave == 4) return f.template operator()<4>();
    }
  f.template operator()<0>();
}

}  // namespace acmix::ACMIX_ISA
