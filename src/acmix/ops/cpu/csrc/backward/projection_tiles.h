// Stage I within a band, backward, by products in tiles, for float32.
#pragma once

#include "backward/projection.h"
#include "stage_one/projection_tiles.h"
#include "stage_two/convolve.h"

namespace acmix::ACMIX_ISA {

// Steps of pixels that go from the gradient of the projections to those of input and weights at once: a pair of blocks
// of them stays in the first-level cache.
constexpr int64_t chunk_steps = 4, pair_size = pair_side * pair_side;

// Pixels are in the order of the packed input, from the step on in which the band's own ones begin.
struct TileProjectionGradient {
  int64_t projections, width;  // of a pass; inputs; both in pairs of blocks
  Blocks rows, columns;        // the gradient of a chunk: projections as rows, summed over pixels; pixels as columns
  float *input, *line;         // in pairs of blocks; of a row

  TileProjectionGradient(const Mix& problem, const BackwardLayout<float>& layout, Arena<float>& arena)
      : projections(pass_projections(layout)), width(round_up(problem.projection.inputs, pair_side)) {
    const int64_t chunk = width ? chunk_steps * step_depth : 0;
    rows = {arena.take(Blocks::size(projections, chunk)), chunk_steps};
    columns = {arena.take(Blocks::size(chunk, projections)), projections / step_depth};
    input = arena.take(round_up(layout.band_rows * layout.pitch + block_side, pair_side) * width);
    line = arena.take(problem.projection.input.inner == 1 ? block_side * width : width * layout.pitch);
  }

  static int64_t pass_projections(const BackwardLayout<float>& layout) {
    return round_up(3 * layout.channels, pair_side);
  }
  // The gradient of the weights, (pair of blocks of projections, of inputs), then that of the bias.
  static int64_t pass_share(const BackwardLayout<float>& layout, int64_t inputs) {
    return pass_projections(layout) * (round_up(inputs, pair_side) + 1);
  }
  // The gradient of the input, of a pair of blocks of inputs and of registers of pixels.
  float* input_pair(int64_t c, int64_t place) const { return input + (place / 2 * width + c) * pair_side; }
};

static inline PackingWork packing_of(const Mix& problem, const BackwardLayout<float>& layout,
                                     const TileProjectionGradient&, bool backward) {
  const TileWeights weights(problem, layout, backward);
  return {weights.passes * weights.pass_size, weights.passes * weights.pass_units()};
}

static inline void pack_part(const Mix& problem, const BackwardLayout<float>& layout, const TileProjectionGradient&,
                             bool backward, float* packed, int64_t part) {
  TileWeights(problem, layout, backward).pack(problem, packed, part);
}

// Registers of pixels of a band: how many before its own ones, in the step in which those begin, and its own.
struct OwnRegisters {
  int64_t skipped, lead, count;  // skipped: whole steps before

  OwnRegisters(const TileProjection& packed, const BackwardBand& band) {
    const int64_t first = (band.first - most(band.begin, 0)) * packed.across;
    skipped = first / 2;
    lead = first % 2;
    count = (band.last - band.first) * packed.across;
  }
};

// The gradients of the projections of the registers of pixels [first, first + 2 steps) as operands, from scratch rows,
// and that of the bias, if one is wanted.
static inline void collect_chunk(const BackwardLayout<float>& layout, const Strip& strip, const TileProjection& packed,
                                 const TileProjectionGradient& scratch, const OwnRegisters& own, int64_t first,
                                 int64_t steps, const float* from, float* bias, bool add) {
  const int64_t known = 3 * layout.channels;
  const int64_t before = (strip.first - strip.begin) / layout.stride * layout.interleave;
  for (int64_t m = 0; m < scratch.projections; m += block_side) {
    Vector<float> sums[block_side] = {};
    for (int64_t step = 0; step < steps; ++step) {
      const float* place[2];
      uint16_t lanes_of[2];
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t index = first + 2 * step + half - own.lead;
        const bool inside = index >= 0 && index < own.count;
        place[half] = from + (inside ? packed.registers[index].place - before : 0) + m * layout.pitch;
        lanes_of[half] = static_cast<uint16_t>(inside ? packed.registers[index].lanes : 0);
      }
      float *row = scratch.rows.step(m / block_side, step), *column = scratch.columns.step(2 * step, m / step_depth);
      for (int64_t l = 0; l < block_side; l += 2) {
        Split parts[2][2];
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const bool real = m + l + i < known;
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            const Vector<float> values =
                (Vector<float>)_mm512_maskz_loadu_ps(real ? lanes_of[half] : 0, place[half] + (l + i) * layout.pitch);
            sums[l + i] += values;
            parts[i][half] = split(values);
          }
          put_row(parts[i][0], parts[i][1], row + (l + i) * block_side);
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half)
          put_pair(parts[0][half], parts[1][half],
                   column + half * scratch.columns.steps * step_floats + (m % step_depth + l) / 2 * block_side);
      }
    }
    if (!bias) continue;
    alignas(vector_bytes) float totals[block_side];
    sum_lanes<float, block_side>(sums, totals);
    store(bias + m, add ? load(bias + m) + load(totals) : load(totals));
  }
}

// As for products of vectors.
static inline void differentiate_pass(const Mix& problem, const BackwardLayout<float>& layout, const Strip& strip,
                                      const TileProjection& packed, const TileProjectionGradient& scratch,
                                      const BackwardBand& band, const float* gradient, const PassGradient<float>& to) {
  const int64_t projections = scratch.projections, width = scratch.width, depth = scratch.columns.steps;
  const Blocks inputs = packed.weights.inputs_of(static_cast<float*>(problem.projection.packed), to.pass);
  const OwnRegisters own(packed, band);
  const int64_t steps = ceil_divide(own.lead + own.count, 2);
  for (int64_t first = 0, count; first < steps; first += count) {
    count = least(chunk_steps, steps - first);
    const bool add = to.add_weights || first > 0;
    collect_chunk(layout, strip, packed, scratch, own, 2 * first, count, gradient,
                  to.weights ? to.weights + projections * width : nullptr, add);
    for (int64_t m = 0; to.weights && m < projections; m += pair_side)
      for (int64_t c = 0; c < width; c += pair_side) {
        float* sums = to.weights + m * width + c * pair_side;
        multiply_pairs(scratch.rows.pair(m / block_side, 0), packed.channels.pair(c / block_side, own.skipped + first),
                       count, Sums::added(sums, pair_side, add), Sums::added(sums + block_side, pair_side, add));
      }
    for (int64_t c = 0; to.wants_input && c < width; c += pair_side)
      for (int64_t step = 0; step < count; ++step) {
        float* sums = scratch.input_pair(c, 2 * (first + step));
        multiply_pairs(inputs.pair(c / block_side, 0), scratch.columns.pair(2 * step, 0), depth,
                       Sums::added(sums, pair_side, to.add_input),
                       Sums::added(sums + block_side, pair_side, to.add_input));
      }
  }
}

// As for products of vectors.
static inline void unpack_input(const Mix& problem, const Field& to, const BackwardLayout<float>& layout,
                                const MapScratch<float>& maps, const TileProjection& packed,
                                const TileProjectionGradient& scratch, int64_t group, const BackwardBand& band) {
  const Columns& columns = layout.columns;
  const Strip& strip = maps.inputs;
  const int64_t inputs = problem.projection.inputs, width = scratch.width;
  const int64_t members = layout.members(group, problem.shape.batch), image = group * layout.interleave * to.batch;
  const int64_t before = (strip.first - strip.begin) / columns.stride * columns.interleave;
  const Weave weave = {columns.stride, columns.interleave, packed.across / columns.stride * block_side, members};
  int64_t place = OwnRegisters(packed, band).lead;
  for (int64_t row = band.first; row < band.last; ++row) {
    if (to.inner == 1) {
      with_elements<float>(to, image + row * to.row + strip.begin * to.column, [&](auto* pixels) {
        for_registers<float>(pixels, to.batch, to.column, strip.width(), weave, [&](int64_t x, auto* const* lane) {
          for (int64_t c = 0; c < width; c += block_side) {
            const float* from = scratch.input_pair(c / pair_side * pair_side, place) + c % pair_side * pair_side +
                                place % 2 * block_side;
            Vector<float> values[block_side];
#pragma GCC unroll 16
            for (int l = 0; l < block_side; ++l) values[l] = load(from + l * pair_side);
            transpose<float>(values);
#pragma GCC unroll 16
            for (int l = 0; l < block_side; ++l) store(scratch.line + l * width + c, values[l]);
          }
          for (int64_t l = 0; l < block_side; ++l)
            if (lane[l] && packed.registers[x / block_side].lanes >> l & 1)
              store_run(scratch.line + l * width, inputs, lane[l]);
          ++place;
        });
      });
      continue;
    }
    for (int64_t i = 0; i < packed.across; ++i, ++place) {
      const MapRegister& cells = packed.registers[i];
      for (int64_t c = 0; c < inputs; ++c)
        _mm512_mask_storeu_ps(scratch.line + c * layout.pitch + cells.place - before,
                              static_cast<__mmask16>(cells.lanes),
                              (__m512)load(scratch.input_pair(c / pair_side * pair_side, place) +
                                           c % pair_side * pair_side + place % 2 * block_side));
    }
    unpack_row(columns, maps, scratch.line, to, image + row * to.row, inputs, strip, members);
  }
}

static inline void sum_shares(const Mix& problem, const BackwardLayout<float>& layout,
                              const TileProjectionGradient& scratch, const float* shares, float* weight, float* bias,
                              int64_t first, int64_t last) {
  const TileWeights weights(problem, layout, true);
  const int64_t inputs = problem.projection.inputs, width = scratch.width, projections = scratch.projections;
  const int64_t share = TileProjectionGradient::pass_share(layout, inputs);
  auto sum = [&](const float* from) {
    Vector<float> total = load(from);
    for (int64_t slice = 1; slice < layout.slices; ++slice) total += load(from + slice * layout.passes * share);
    return total;
  };
  alignas(vector_bytes) float line[block_side];
  for (int64_t row = first * block_side; row < last * block_side; ++row) {
    const int64_t pass = row / projections, place = row % projections;
    if (place >= 3 * layout.channels) continue;
    const float* from = shares + pass * share + place / pair_side * pair_side * width + place % pair_side * pair_side;
    float* to = weight + weights.output(pass, place) * inputs;
    for (int64_t c = 0; c < inputs; c += block_side) {
      store(line, sum(from + c / pair_side * pair_size + c % pair_side));
      copy_run(line, least(block_side, inputs - c), to + c);
    }
    if (!bias) continue;
    store(line, sum(shares + pass * share + projections * width + place / block_side * block_side));
    bias[weights.output(pass, place)] = line[place % block_side];
  }
}

}  // namespace acmix::ACMIX_ISA
