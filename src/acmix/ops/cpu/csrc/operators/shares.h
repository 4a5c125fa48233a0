// Memory in which tasks gather shares of sums, and the sums as tensors.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "operators/tensors.h"

namespace acmix {
namespace {

// Rows of zeros in the compute type, to each of which a share of one sum is added. They are no tensors: nobody else
// sees them.
class Shares {
 public:
  Shares(const Tensor& like, int64_t rows, int64_t row) : rows_(rows), row_(row) {
    const size_t size = compute_type(like) == Element::float64 ? sizeof(double) : sizeof(float);
    memory_.reset(std::calloc(static_cast<size_t>(rows * row) + 1, size));
    if (!memory_) throw std::bad_alloc();
  }

  void* data() const { return memory_.get(); }

  // The sum of the rows in their order, whatever the number of threads, from column `first` on.
  Tensor sum(const Tensor& like, const std::vector<int64_t>& sizes, int64_t first = 0) const {
    Tensor total = like.empty(sizes, compute_type(like));
    with_data(total, [&](auto* to) {
      const auto* from = static_cast<decltype(to)>(data()) + first;
      parallel_for(total.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        std::copy(from + begin, from + end, to + begin);
        for (int64_t row = 1; row < rows_; ++row)
          for (int64_t i = begin; i < end; ++i) to[i] += from[row * row_ + i];
      });
    });
    return total;
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  int64_t rows_, row_;
  std::unique_ptr<void, Free> memory_;
};

}  // namespace
}  // namespace acmix
