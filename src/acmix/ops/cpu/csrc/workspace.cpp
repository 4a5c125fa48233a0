// Scratch memory of each thread.
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <memory>
#include <new>

#include "problem.h"

namespace acmix {

void* workspace(size_t bytes, Use use) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  struct Block {
    std::unique_ptr<void, Free> memory;
    size_t capacity = 0;
  };
  thread_local Block blocks[2];
  auto& [memory, capacity] = blocks[use == Use::weights];
  if (bytes > capacity) {
    memory.reset();
    capacity = 0;
    // Kernels walk over many rows at once: in pages of 2 MiB they miss fewer translations.
    constexpr size_t page = 2 << 20;
    const size_t alignment = bytes < page ? 64 : page, rounded = (bytes + alignment - 1) / alignment * alignment;
    memory.reset(std::aligned_alloc(alignment, rounded));
    if (!memory) throw std::bad_alloc();
    capacity = rounded;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // A system without large pages declines, and no harm is done.
    if (alignment == page) madvise(memory.get(), rounded, MADV_HUGEPAGE);
#endif
  }
  return memory.get();
}

}  // namespace acmix
