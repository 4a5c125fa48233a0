// Stage I within a band by products in tiles, for float32.
#pragma once

#include "products/tiles.h"
#include "stage_one/projection.h"

namespace acmix::ACMIX_ISA {

// The weights of all passes as products read them: of each pass its 3 `channels` projections as rows, their bias once
// for every column of a block, and for the backward pass the inputs as rows; sides in pairs of blocks.
struct TileWeights {
  int64_t inputs, channels, maps, passes, outputs, depth, rows_size, bias_size, pass_size;
  bool backward;

  TileWeights(const Mix& problem, const MapLayout<float>& layout, bool for_backward)
      : inputs(problem.projection.inputs),
        channels(layout.channels),
        maps(problem.shape.heads * problem.shape.head_size),
        passes(layout.passes),
        outputs(round_up(3 * channels, pair_side)),
        depth(round_up(inputs, pair_side)),
        rows_size(Blocks::size(outputs, depth)),
        bias_size(outputs * block_side),
        pass_size((for_backward ? 2 : 1) * rows_size + bias_size),
        backward(for_backward) {}

  Blocks rows_of(float* packed, int64_t pass) const { return {packed + pass * pass_size, depth / step_depth}; }
  float* bias_of(float* packed, int64_t pass) const { return packed + pass * pass_size + rows_size; }
  Blocks inputs_of(float* packed, int64_t pass) const {
    return {bias_of(packed, pass) + bias_size, outputs / step_depth};
  }
  // Which output projection `row` of a pass is.
  int64_t output(int64_t pass, int64_t row) const { return row / channels * maps + pass * channels + row % channels; }
  int64_t pass_units() const { return (outputs + (backward ? depth : 0)) / block_side; }

  // One block of rows of a pass.
  void pack(const Mix& problem, float* packed, int64_t unit) const {
    const int64_t pass = unit / pass_units(), block = unit % pass_units(), first_inputs = outputs / block_side;
    if (block < first_inputs)
      pack_outputs(problem, pass, block, rows_of(packed, pass), bias_of(packed, pass));
    else
      pack_inputs(problem, pass, block - first_inputs, inputs_of(packed, pass));
  }

 private:
  // 16 numbers of a row from input `first` on, zeros beyond the matrix.
  Vector<float> load_weights(const Mix& problem, int64_t pass, int64_t row, int64_t first) const {
    if (row >= 3 * channels || first >= inputs) return Vector<float>{};
    const float* from = static_cast<const float*>(problem.projection.weight) + output(pass, row) * inputs + first;
    if (first + block_side <= inputs) return load(from);
    alignas(vector_bytes) float part[block_side] = {};
    copy_run(from, inputs - first, part);
    return load(part);
  }

  void pack_outputs(const Mix& problem, int64_t pass, int64_t block, const Blocks& rows, float* biases) const {
    const float* bias = static_cast<const float*>(problem.projection.bias);
    for (int64_t place = 0; place < block_side; ++place) {
      const int64_t row = block * block_side + place;
      store(biases + row * block_side, splat(bias && row < 3 * channels ? bias[output(pass, row)] : 0.f));
      for (int64_t k = 0; k < depth; k += step_depth)
        put_row(split(load_weights(problem, pass, row, k)), split(load_weights(problem, pass, row, k + block_side)),
                rows.step(block, k / step_depth) + place * block_side);
    }
  }

  void pack_inputs(const Mix& problem, int64_t pass, int64_t block, const Blocks& rows) const {
    for (int64_t m = 0; m < outputs; m += step_depth) {
      Vector<float> low[block_side], high[block_side];
      for (int64_t l = 0; l < block_side; ++l) {
        low[l] = load_weights(problem, pass, m + l, block * block_side);
        high[l] = load_weights(problem, pass, m + block_side + l, block * block_side);
      }
      transpose<float>(low);
      transpose<float>(high);
      for (int64_t place = 0; place < block_side; ++place)
        put_row(split(low[place]), split(high[place]), rows.step(block, m / step_depth) + place * block_side);
    }
  }
};

// Lanes of a register of a row of maps, which lies `place` behind column strip.begin.
struct MapRegister {
  int64_t place;
  uint64_t lanes;
};

// The input as columns: pixels, summed over channels, and for the backward pass channels, summed over pixels. Pixels
// are those of the registers of row after row.
struct TileProjection {
  TileWeights weights;
  int64_t rows, across = 0;       // registers of a row
  int64_t behind = 0, edges = 0;  // of what has to be zeros, behind maps and in all
  MapRegister *registers, *edge;  // of all rows, the strip's own lanes; what has to be zeros
  Blocks pixels, channels;
  float *line, *buffer;  // of one row, one register of pixels

  TileProjection(const Mix& problem, const MapLayout<float>& layout, int64_t most_rows, bool backward,
                 Arena<float>& arena)
      : weights(problem, layout, backward), rows(most_rows) {
    const int64_t count = weights.inputs ? rows * layout.pitch / block_side : 0, side = round_up(count, 2) * block_side;
    registers = reinterpret_cast<MapRegister*>(take_integers(arena, 2 * count));
    edge = reinterpret_cast<MapRegister*>(
        take_integers(arena, weights.inputs ? 4 * layout.stride * (ceil_divide(beside(layout), block_side) + 2) : 0));
    pixels = {arena.take(Blocks::size(side, weights.depth)), weights.depth / step_depth};
    channels = {arena.take(backward ? Blocks::size(weights.depth, side) : 0), side / step_depth};
    line = arena.take(problem.projection.input.inner == 1 ? 0 : weights.inputs * layout.pitch);
    buffer = arena.take(weights.inputs * block_side);
  }

  // Make the tables of a strip.
  void aim(const MapLayout<float>& layout, const Strip& strip) {
    const Columns& columns = layout.columns;
    const int64_t before = (strip.first - strip.begin) / columns.stride * columns.interleave;
    const int64_t phase_registers = ceil_divide(columns.cells(strip.width(), 0), block_side);
    across = columns.stride * phase_registers;
    MapRegister* next = registers;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t phase = 0; phase < columns.stride; ++phase)
        for (int64_t i = 0; i < phase_registers; ++i) {
          const int64_t first = before - i * block_side, last = first + columns.cells(strip.size(), phase);
          *next++ = {row * layout.row + phase * columns.phase_pitch + i * block_side, lanes_from(first, last)};
        }
    edges = 0;
    auto clear_cells = [&](int64_t place, int64_t count) {
      for (int64_t x = 0; x < count; x += block_side) edge[edges++] = {place + x, lanes_from(0, count - x)};
    };
    // Registers end behind the map, with the bias.
    for (int64_t phase = 0; phase < columns.stride; ++phase) {
      const int64_t cells = columns.cells(strip.width(), phase);
      clear_cells(phase * columns.phase_pitch + cells,
                  most(phase_registers * block_side - cells, strip.end == strip.last ? beside(layout) : 0));
    }
    behind = edges;
    for (int64_t phase = 0; phase < columns.stride && strip.begin == strip.first; ++phase)
      clear_cells(phase * columns.phase_pitch - beside(layout), beside(layout));
  }

  // Cells on both sides of a map that taps read as zeros.
  static int64_t beside(const MapLayout<float>& layout) {
    return ceil_divide(layout.padding, layout.stride) * layout.interleave;
  }
  static uint64_t lanes_from(int64_t first, int64_t last) {
    auto below = [](int64_t lane) { return (uint64_t{1} << most(least(lane, block_side), 0)) - 1; };
    return below(last) & ~below(first);
  }

  // Take a register of pixels, of channels `pitch` apart; none is all zeros.
  void put(int64_t place, const float* from, int64_t pitch) const {
    for (int64_t c = 0; c < weights.depth; c += block_side) {
      Vector<float> values[block_side];
      Split parts[block_side];
#pragma GCC unroll 16
      for (int l = 0; l < block_side; ++l)
        values[l] = from && c + l < weights.inputs ? load(from + (c + l) * pitch) : Vector<float>{};
#pragma GCC unroll 16
      for (int l = 0; l < block_side; ++l) parts[l] = split(values[l]);
      float* to = pixels.step(place, c / step_depth) + c % step_depth / 2 * block_side;
#pragma GCC unroll 8
      for (int l = 0; l < block_side; l += 2) put_pair(parts[l], parts[l + 1], to + l / 2 * block_side);
      if (!weights.backward) continue;
      transpose<float>(values);
      to = channels.step(c / block_side, place / 2) + place % 2 * tile_floats / 2;
#pragma GCC unroll 8
      for (int l = 0; l < block_side; l += 2) put_pair(split(values[l]), split(values[l + 1]), to + l / 2 * block_side);
    }
  }
};

// Rows [begin, end) of the input of a group of images.
static inline void pack_input(const Mix& problem, const MapLayout<float>& layout, const MapScratch<float>& maps,
                              const TileProjection& scratch, int64_t group, int64_t begin, int64_t end) {
  const Field& field = problem.projection.input;
  const Columns& columns = layout.columns;
  const Strip& strip = maps.inputs;
  const int64_t inputs = problem.projection.inputs, members = layout.members(group, problem.shape.batch);
  const int64_t image = group * layout.interleave * field.batch,
                ahead = block_side * columns.stride / columns.interleave * field.column;
  const Weave weave = {columns.stride, columns.interleave, scratch.across / columns.stride * block_side, members};
  int64_t place = 0;
  for (int64_t row = begin; row < end; ++row) {
    if (field.inner == 1) {
      with_elements<float>(field, image + row * field.row + strip.begin * field.column, [&](const auto* from) {
        for_registers<float>(from, field.batch, field.column, strip.width(), weave, [&](int64_t, const auto* lane) {
          load_pixels<float>(lane, inputs, ahead, scratch.buffer, block_side);
          if (problem.ends.rectified_input) rectify_run(scratch.buffer, inputs * block_side);
          scratch.put(place++, scratch.buffer, block_side);
        });
      });
      continue;
    }
    pack_row(columns, maps, field, image + row * field.row, inputs, strip, members, scratch.line);
    if (problem.ends.rectified_input) rectify_run(scratch.line, inputs * layout.pitch);
    for (int64_t i = 0; i < scratch.across; ++i)
      scratch.put(place++, scratch.line + scratch.registers[i].place, layout.pitch);
  }
  // The second block of the last pair is multiplied with.
  if (place % 2) scratch.put(place, nullptr, 0);
}

// Zeros beside the maps [begin, end) of the rows [first, last): behind them, where registers end, and before those of
// keys and values, where reflections were.
static inline void clear_edges(const MapLayout<float>& layout, const TileProjection& scratch, int64_t first,
                               int64_t last, int64_t begin, int64_t end, float* to) {
  for (int64_t row = first; row < last; ++row)
    for (int64_t m = begin; m < end; ++m) {
      float* map = to + row * layout.row + m * layout.pitch;
      const int64_t edges = m < layout.channels ? scratch.behind : scratch.edges;
      for (const MapRegister* edge = scratch.edge; edge < scratch.edge + edges; ++edge)
        _mm512_mask_storeu_ps(map + edge->place, static_cast<__mmask16>(edge->lanes), _mm512_setzero_ps());
    }
}

// Pixels of so many bytes are multiplied with all weights of a pass before the next ones.
constexpr int64_t projected_chunk_bytes = 256 << 10;

// As the product of vectors does.
static inline void project_rows(const Mix& problem, const MapLayout<float>& layout, const TileProjection& scratch,
                                int64_t head, int64_t rows, float* to) {
  const TileWeights& weights = scratch.weights;
  const int64_t registers = rows * scratch.across, steps = scratch.pixels.steps, outputs = 3 * layout.channels;
  const int64_t chunk = 2 * most(projected_chunk_bytes / (2 * steps * step_floats * int64_t{sizeof(float)}), 1);
  float* packed = static_cast<float*>(problem.projection.packed);
  const Blocks weight_rows = weights.rows_of(packed, head / layout.heads);
  const float* biases = weights.bias_of(packed, head / layout.heads);
  // What is no map, or no register.
  alignas(vector_bytes) float spare[2][pair_side * block_side];
  for (int64_t first = 0; first < registers; first += chunk) {
    const int64_t last = least(first + chunk, registers);
    for (int64_t m = 0; m < outputs; m += pair_side) {
      const int64_t count = least(outputs - m, pair_side);
      for (int64_t x = first; x < last; x += 2) {
        Sums sums[2];
        for (int64_t i = 0; i < 2; ++i) {
          const float* bias = biases + m * block_side;
          sums[i] = {bias, block_side, spare[i], block_side};
          if (count == pair_side && x + i < registers)
            sums[i] = {bias, block_side, to + scratch.registers[x + i].place + m * layout.pitch, layout.pitch};
        }
        multiply_pairs(weight_rows.pair(m / block_side, 0), scratch.pixels.pair(x, 0), steps, sums[0], sums[1]);
        if (count == pair_side) continue;
        for (int64_t i = 0; i < least(registers - x, 2); ++i)
          for (int64_t l = 0; l < count; ++l)
            store(to + scratch.registers[x + i].place + (m + l) * layout.pitch, load(spare[i] + l * block_side));
      }
      // While they are in the first-level cache.
      clear_edges(layout, scratch, first / scratch.across, last / scratch.across, m, m + count, to);
    }
  }
}

}  // namespace acmix::ACMIX_ISA
