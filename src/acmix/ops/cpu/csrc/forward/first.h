// The convolution of one cell before the operator, whose input is what that gives: a pass of its own, as bands of rows
// would compute their halos twice. A task is a run of cells of all images, or, where they are few, some outputs of one.
#pragma once

#include "forward/pointwise.h"
#include "stage_one/projection.h"

namespace acmix::ACMIX_ISA {

// Of the panels of a run, which stay in the second-level cache.
constexpr int64_t run_bytes = 512 << 10;

template <class T>
struct FirstLayout {
  int64_t cells, run, runs, outputs, parts;  // run: cells of one; outputs: of one part

  explicit FirstLayout(const Mix& problem) : cells(problem.shape.batch * problem.shape.height * problem.shape.width) {
    constexpr int64_t tile = projected_vectors * lanes<T>;
    const Pointwise& layer = problem.ends.first;
    const int64_t size = layer.weight_element == Element::bfloat16 ? sizeof(Brain) : sizeof(T);
    const int64_t cell_bytes = layer.inputs * size, threads = problem.threads;
    const int64_t cached = most(run_bytes / cell_bytes / tile, 1) * tile, wanted = ceil_divide(cells, cached);
    // As many runs for every thread, of whole registers.
    run = round_up(ceil_divide(cells, round_up(wanted, threads)), lanes<T>);
    const bool few = run < tile && cells <= tile * threads;
    if (few) run = least(tile, round_up(cells, lanes<T>));
    runs = ceil_divide(cells, run);
    parts = few ? ceil_divide(threads, runs) : 1;
    outputs = round_up(ceil_divide(layer.outputs, parts), 2);
    parts = ceil_divide(layer.outputs, outputs);
  }
};

// The cells [first, last) in panels, and their pixels in the output.
template <class T>
static void pack_cells(const Mix& problem, const PointwiseScratch<T>& scratch, int64_t first, int64_t last) {
  const Pointwise& layer = problem.ends.first;
  const Field &from = problem.ends.input, &to = problem.projection.input;
  const int64_t width = problem.shape.width, height = problem.shape.height;
  with_elements<T>(from, 0, [&](const auto* pixels) {
    Tiles tile(ceil_divide(last - first, lanes<T>), projected_vectors);
    for (int64_t place = 0; place < tile.registers; ++place) {
      if (place == tile.first + tile.size) tile.next();
      decltype(pixels) lane[lanes<T>];
      for (int i = 0; i < lanes<T>; ++i) {
        const int64_t cell = first + place * lanes<T> + i;
        const int64_t image = cell / width / height, row = cell / width % height, column = cell % width;
        auto offset = [&](const Field& field) {
          return image * field.batch + row * field.row + column * field.column;
        };
        lane[i] = cell < last ? pixels + offset(from) : nullptr;
        scratch.pixels.output[place * lanes<T> + i] = cell < last ? offset(to) : -1;
      }
      T* panel = scratch.panels + (tile.first * scratch.terms + place - tile.first) * lanes<T>;
      load_input<T, false>(scratch.paired, lane, layer.inputs, lanes<T> * from.column, panel, tile.size * lanes<T>);
    }
  });
}

template <class T>
static int64_t first_tasks(const Mix& problem) {
  const FirstLayout<T> layout(problem);
  return layout.runs * layout.parts;
}

template <class T>
static void first(const Mix& problem, int64_t first_task, int64_t last_task) {
  const Pointwise& layer = problem.ends.first;
  const FirstLayout<T> layout(problem);
  Arena<T> arena;
  PointwiseScratch<T>(layer, layer.inputs, layout.run, arena);
  arena = {static_cast<T*>(workspace(static_cast<size_t>(arena.used) * sizeof(T), Use::tasks)), 0};
  const PointwiseScratch<T> scratch(layer, layer.inputs, layout.run, arena);
  for (int64_t task = first_task; task < last_task; ++task) {
    const int64_t begin = task / layout.parts * layout.run, end = least(begin + layout.run, layout.cells);
    const int64_t output = task % layout.parts * layout.outputs;
    pack_cells(problem, scratch, begin, end);
    multiply_panels<T>(layer, scratch, end - begin, output, least(output + layout.outputs, layer.outputs),
                       problem.projection.input);
  }
}

}  // namespace acmix::ACMIX_ISA
