// Float32 matrix products in tiles of bfloat16 (AMX): a number is the sum of three bfloat16 numbers, its terms, and a
// product the six of their products that float32 would not lose, summed in float32.
//   Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations,
//   ARITH 2019, arXiv 1904.06376
// Numbers that are infinite, or beyond 3.39e38, become NaN; terms below 1.2e-38 count as zero.
#pragma once

#include <immintrin.h>

#include "products/simd.h"

namespace acmix::ACMIX_ISA {

// A block is 16 rows, or columns, of an operand; a step 32 numbers of its inner dimension: three tiles, one a term.
constexpr int64_t block_side = 16, step_depth = 32, tile_floats = 256, step_floats = 3 * tile_floats;
// Products are computed for pairs of blocks.
constexpr int64_t pair_side = 2 * block_side;

// Two blocks of rows, or of columns, `next` floats apart.
struct BlockPair {
  const float* first;
  int64_t next;
};

// Blocks of an operand, each in `steps` steps. A tile of rows holds 32 numbers of each, a tile of columns 16 pairs of
// numbers of all of them.
struct Blocks {
  float* data;
  int64_t steps;

  float* step(int64_t block, int64_t index) const { return data + (block * steps + index) * step_floats; }
  BlockPair pair(int64_t block, int64_t index) const { return {step(block, index), steps * step_floats}; }
  static int64_t size(int64_t side, int64_t depth) { return side / block_side * depth / step_depth * step_floats; }
};

// Tiles are state of a thread, of which the compiler knows nothing.
struct TileState {
  TileState() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.row_bytes[tile] = 64;
      shapes.rows[tile] = block_side;
    }
    _tile_loadconfig(&shapes);
  }
  TileState(const TileState&) = delete;
  TileState& operator=(const TileState&) = delete;
  ~TileState() { _tile_release(); }
};

using Integers = VectorOf<float>::integer;

// Terms in the upper halves of lanes.
struct Split {
  Integers term[3];
};

static inline Split split(Vector<float> x) {
  const Integers half = Integers{} + 0x8000, upper = Integers{} + static_cast<int32_t>(0xffff0000);
  Split parts;
  // Rounding would carry the largest NaN into the sign.
  x = x == x ? x : splat(__builtin_nanf(""));
#pragma GCC unroll 3
  for (int t = 0; t < 3; ++t) {
    parts.term[t] = ((Integers)x + half) & upper;
    x -= (Vector<float>)parts.term[t];
  }
  return parts;
}

// 32 numbers of a row, in the step at `to` + 16 times the row's place in its block.
static inline void put_row(const Split& low, const Split& high, float* to) {
  typedef int16_t Halves __attribute__((vector_size(vector_bytes)));
  Halves odd;
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) odd[i] = static_cast<int16_t>(2 * i + 1);
#pragma GCC unroll 3
  for (int t = 0; t < 3; ++t)
    store<float>(to + t * tile_floats,
                 (Vector<float>)__builtin_shuffle((Halves)low.term[t], (Halves)high.term[t], odd));
}

// A pair of numbers of 16 columns, in the step at `to` + 16 times the pair's place.
static inline void put_pair(const Split& even, const Split& odd, float* to) {
  typedef uint32_t Words __attribute__((vector_size(vector_bytes)));
#pragma GCC unroll 3
  for (int t = 0; t < 3; ++t)
    store<float>(to + t * tile_floats, (Vector<float>)(((Words)even.term[t] >> 16) | (Words)odd.term[t]));
}

// Where the sums of one block of columns begin, zeros if nowhere, and where they go; rows `pitch` apart.
struct Sums {
  const float* from;
  int64_t from_pitch;
  float* to;
  int64_t pitch;

  static Sums added(float* to, int64_t pitch, bool add) { return {add ? to : nullptr, pitch, to, pitch}; }
};

// The product of a pair of blocks of rows and one of columns over `steps` steps.
static inline void multiply_pairs(const BlockPair& rows, const BlockPair& columns, int64_t steps, const Sums& left,
                                  const Sums& right) {
  constexpr int64_t size = sizeof(float);
  const float *upper = rows.first, *lower = upper + rows.next, *one = columns.first, *other = one + columns.next;
  auto load_rows = [&](int64_t term) __attribute__((always_inline)) {
    _tile_loadd(4, upper + term * tile_floats, 64);
    _tile_loadd(5, lower + term * tile_floats, 64);
  };
  auto load_columns = [&](int64_t term) __attribute__((always_inline)) {
    _tile_loadd(6, one + term * tile_floats, 64);
    _tile_loadd(7, other + term * tile_floats, 64);
  };
  auto multiply = []() __attribute__((always_inline)) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  };
  // GCC's loads of tiles do not say that they read memory.
  asm volatile("" ::: "memory");
  if (left.from) {
    _tile_loadd(0, left.from, left.from_pitch * size);
    _tile_loadd(1, right.from, right.from_pitch * size);
    _tile_loadd(2, left.from + block_side * left.from_pitch, left.from_pitch * size);
    _tile_loadd(3, right.from + block_side * right.from_pitch, right.from_pitch * size);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // In an order in which each product but the first finds one operand in place.
  for (; steps > 0; --steps) {
    load_rows(2), load_columns(0), multiply();
    load_rows(0), multiply();
    load_columns(2), multiply();
    load_columns(1), multiply();
    load_rows(1), multiply();
    load_columns(0), multiply();
    upper += step_floats, lower += step_floats, one += step_floats, other += step_floats;
  }
  _tile_stored(0, left.to, left.pitch * size);
  _tile_stored(1, right.to, right.pitch * size);
  _tile_stored(2, left.to + block_side * left.pitch, left.pitch * size);
  _tile_stored(3, right.to + block_side * right.pitch, right.pitch * size);
}

}  // namespace acmix::ACMIX_ISA
