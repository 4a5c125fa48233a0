// Stands in for the compiler's header where the processor has no AVX-512, AVX512-BF16 or AMX: what the kernels use of
// them, as Intel's manual defines it (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2). Vectors
// of 64 bytes are the compiler's own, in halves. Included before anything in the kernels says `asm`.
#pragma once

#include <cstdint>
#include <cstring>

// Constrains a value to a register that the processor has not.
#define asm(...)

// In lines of the kernels, which are unrolled, they would be compiled for a quarter of an hour.
#define EMULATED [[gnu::noinline, maybe_unused]] static

typedef float __m512 __attribute__((vector_size(64)));
typedef double __m512d __attribute__((vector_size(64)));
typedef int64_t __m512i __attribute__((vector_size(64)));
typedef int16_t __m512bh __attribute__((vector_size(64)));
typedef int64_t __m256i __attribute__((vector_size(32)));
typedef int16_t __m256bh __attribute__((vector_size(32)));
typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;

namespace emulated {

typedef int32_t Words __attribute__((vector_size(64)));

// Products of bfloat16 numbers take denormal numbers for zeros, and give none.
static inline __m512 flushed(__m512 x) {
  const Words bits = (Words)x;
  return (__m512)((bits & 0x7f800000) == 0 ? bits & INT32_MIN : bits);
}

// The first, or second, numbers of pairs.
static inline __m512 first(__m512bh pairs) { return flushed((__m512)((Words)pairs << 16)); }
static inline __m512 second(__m512bh pairs) { return flushed((__m512)((Words)pairs & -65536)); }

// Not fused: products of bfloat16 numbers are exact.
static inline __m512 added(__m512 sum, __m512 a, __m512 b) { return flushed(flushed(sum) + a * b); }

// To bfloat16, in the upper halves of lanes.
static inline Words rounded(__m512 x) {
  const Words bits = (Words)flushed(x), nearest = bits + 0x7fff + (bits >> 16 & 1);
  return x == x ? nearest : bits | 0x400000;
}

// Lanes that the mask has not are neither read nor written.
template <int lanes, class Number, class V>
static inline void store(void* to, uint64_t mask, V value) {
  for (int lane = 0; lane < lanes; ++lane)
    if (mask >> lane & 1)
      std::memcpy(static_cast<char*>(to) + lane * sizeof(Number),
                  reinterpret_cast<const char*>(&value) + lane * sizeof(Number), sizeof(Number));
}

}  // namespace emulated

EMULATED __m512 _mm512_setzero_ps() { return __m512{}; }

EMULATED __m512i _mm512_set1_epi32(int32_t value) { return (__m512i)(emulated::Words{} + value); }

EMULATED void _mm512_mask_storeu_ps(void* to, __mmask16 mask, __m512 value) {
  emulated::store<16, float>(to, mask, value);
}

EMULATED void _mm512_mask_storeu_pd(void* to, __mmask8 mask, __m512d value) {
  emulated::store<8, double>(to, mask, value);
}

EMULATED void _mm512_mask_storeu_epi16(void* to, __mmask32 mask, __m512i value) {
  emulated::store<32, int16_t>(to, mask, value);
}

EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* from) {
  __m512 value{};
  for (int lane = 0; lane < 16; ++lane)
    if (mask >> lane & 1) value[lane] = static_cast<const float*>(from)[lane];
  return value;
}

// Sixteen lanes from `first` on, of low and high in a row.
EMULATED __m512i _mm512_maskz_alignr_epi32(__mmask16 mask, __m512i high, __m512i low, int first) {
  float row[32];
  std::memcpy(row, &low, 64);
  std::memcpy(row + 16, &high, 64);
  return (__m512i)_mm512_maskz_loadu_ps(mask, row + first);
}

EMULATED __m512 _mm512_maskz_cvtph_ps(__mmask16 mask, __m256i halves) {
  _Float16 row[16];
  std::memcpy(row, &halves, sizeof row);
  __m512 value{};
  for (int lane = 0; lane < 16; ++lane)
    if (mask >> lane & 1) value[lane] = static_cast<float>(row[lane]);
  return value;
}

EMULATED __m256bh _mm512_cvtneps_pbh(__m512 values) {
  const emulated::Words words = emulated::rounded(values);
  __m256bh halves;
  for (int lane = 0; lane < 16; ++lane) halves[lane] = static_cast<int16_t>(words[lane] >> 16);
  return halves;
}

EMULATED __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  const __m256bh halves[] = {_mm512_cvtneps_pbh(low), _mm512_cvtneps_pbh(high)};
  __m512bh all;
  std::memcpy(&all, halves, sizeof all);
  return all;
}

EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  sum = emulated::added(sum, emulated::second(a), emulated::second(b));
  return emulated::added(sum, emulated::first(a), emulated::first(b));
}

namespace emulated {

// Eight tiles a thread, of at most 16 rows of 64 bytes.
struct Tiles {
  bool ready;
  uint16_t row_bytes[8];
  uint8_t rows[8];
  alignas(64) char data[8][16][64];
};
static thread_local Tiles tiles;

// As the processor faults.
static inline Tiles& ready_tiles() {
  if (!tiles.ready) __builtin_trap();
  return tiles;
}

}  // namespace emulated

EMULATED void _tile_loadconfig(const void* from) {
  const auto* config = static_cast<const uint8_t*>(from);
  if (config[0] != 1) __builtin_trap();
  emulated::tiles = {};
  emulated::tiles.ready = true;
  std::memcpy(emulated::tiles.row_bytes, config + 16, sizeof emulated::tiles.row_bytes);
  std::memcpy(emulated::tiles.rows, config + 48, sizeof emulated::tiles.rows);
}

EMULATED void _tile_release() { emulated::tiles.ready = false; }

EMULATED void _tile_zero(int tile) {
  auto& tiles = emulated::ready_tiles();
  std::memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

EMULATED void _tile_loadd(int tile, const void* from, int64_t stride) {
  _tile_zero(tile);
  auto& tiles = emulated::ready_tiles();
  for (int row = 0; row < tiles.rows[tile]; ++row)
    std::memcpy(tiles.data[tile][row], static_cast<const char*>(from) + row * stride, tiles.row_bytes[tile]);
}

EMULATED void _tile_stored(int tile, void* to, int64_t stride) {
  auto& tiles = emulated::ready_tiles();
  for (int row = 0; row < tiles.rows[tile]; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, tiles.data[tile][row], tiles.row_bytes[tile]);
}

EMULATED void _tile_dpbf16ps(int sum, int a, int b) {
  auto& tiles = emulated::ready_tiles();
  const int pairs = tiles.row_bytes[a] / 4;
  if (tiles.rows[a] != tiles.rows[sum] || tiles.row_bytes[b] != tiles.row_bytes[sum] || tiles.rows[b] != pairs)
    __builtin_trap();
  // The host takes denormal numbers for zeros, and gives none, while it computes in memory.
  const unsigned control = __builtin_ia32_stmxcsr(), flush = 0x8040;
  __builtin_ia32_ldmxcsr(control | flush);
  __asm__ volatile("" ::: "memory");
  for (int row = 0; row < tiles.rows[sum]; ++row) {
    __m512 even{}, odd{}, sums;
    for (int pair = 0; pair < pairs; ++pair) {
      int32_t left;
      emulated::Words right;
      std::memcpy(&left, tiles.data[a][row] + 4 * pair, sizeof left);
      std::memcpy(&right, tiles.data[b][pair], sizeof right);
      even += (__m512)((emulated::Words{} + left) << 16) * (__m512)(right << 16);
      odd += (__m512)(emulated::Words{} + (left & -65536)) * (__m512)(right & -65536);
    }
    std::memcpy(&sums, tiles.data[sum][row], sizeof sums);
    sums += even + odd;
    std::memcpy(tiles.data[sum][row], &sums, tiles.row_bytes[sum]);
  }
  __asm__ volatile("" ::: "memory");
  __builtin_ia32_ldmxcsr(control);
}
