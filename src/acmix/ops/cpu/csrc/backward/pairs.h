// Stage I of bfloat16, backward, where the instruction set multiplies pairs of them: neighbouring pixels share a lane
// in the gradient of the weights, neighbouring projections in that of the input. Sums stay float32.
#pragma once

#include "backward/layout.h"
#include "stage_one/projection.h"

namespace acmix::ACMIX_ISA {

// The gradients of one pass, `projections` of every pixel, as pairs of both kinds, in the room of as many numbers and
// two pixels more. Pairs of pixels are those of the packed input: the first own pixel may be the second of its pair.
template <class T>
struct PairedGradient {
  int64_t projections, lead, count;  // count: of pixels
  Brain* by_projection;              // (pixel, projection)
  T* by_pixel;                       // (pair of pixels, projection)

  PairedGradient(T* room, int64_t pass_projections, int64_t first, int64_t pixels)
      : projections(pass_projections),
        lead(first % 2),
        count(pixels),
        by_projection(reinterpret_cast<Brain*>(room)),
        by_pixel(room + round_up(pixels, 2) / 2 * projections) {}

  int64_t pairs() const { return ceil_divide(lead + count, 2); }
};

#if defined(__AVX512BF16__)
typedef int16_t Halves __attribute__((vector_size(vector_bytes)));

// The lower (0) or upper (1) half of a register.
static inline void store_half(void* to, const Halves& halves, int half) {
  std::memcpy(to, reinterpret_cast<const char*>(&halves) + half * vector_bytes / 2, vector_bytes / 2);
}

// Two neighbours in memory, a register of projections each, of which those that are `real` are written.
static inline void put_pixels(const PairedGradient<float>& to, int64_t pixel, int64_t m, Vector<float> first,
                              Vector<float> second, bool first_real, bool second_real) {
  const Halves both = (Halves)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
  Brain* line = to.by_projection + pixel * to.projections + m;
  if (first_real) store_half(line, both, 0);
  if (second_real) store_half(line + to.projections, both, 1);
  Halves alternate;
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) alternate[i] = static_cast<int16_t>(i / 2 + i % 2 * 16);
  const __mmask32 mask = (first_real ? 0x55555555u : 0u) | (second_real ? 0xaaaaaaaau : 0u);
  _mm512_mask_storeu_epi16(to.by_pixel + (to.lead + pixel) / 2 * to.projections + m, mask,
                           (__m512i)__builtin_shuffle(both, alternate));
}

// The packed input, (tile of registers, pair of channels, register), as (tile of registers, channel, pair of pixels).
static inline void pair_pixels(const VectorProjection<float>& packed, int64_t registers, float* to) {
  Halves apart;
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) apart[i] = static_cast<int16_t>(i % 16 * 2 + i / 16);
  constexpr int64_t count = lanes<float>, half = count / 2;
  for (Tiles tile(registers, projected_vectors); tile.first < registers; tile.next())
    for (int64_t c = 0; c < packed.terms; ++c, to += tile.size * count) {
      const float* from = packed.panels + (tile.first * packed.terms + c * tile.size) * count;
      for (int64_t i = 0; i < tile.size; ++i) {
        const Halves channels = __builtin_shuffle((Halves)load(from + i * count), apart);
        store_half(to + i * half, channels, 0);
        store_half(to + (tile.size + i) * half, channels, 1);
      }
    }
}

// Pairs of the weights' rows `first` and `second` of a pass, zeros where there is none.
static inline void pair_rows(const float* first, const float* second, int64_t count, float* to) {
  alignas(vector_bytes) float rows[2][lanes<float>] = {};
  for (int64_t c = 0; c < count; c += lanes<float>) {
    const int64_t size = least(lanes<float>, count - c);
    copy_run(first + c, size, rows[0]);
    if (second) copy_run(second + c, size, rows[1]);
    if (size < lanes<float>) clear(rows[0], size, lanes<float>), clear(rows[1], size, lanes<float>);
    store(to + c, join_pairs(load(rows[0]), load(rows[1])));
  }
}
#endif

}  // namespace acmix::ACMIX_ISA
