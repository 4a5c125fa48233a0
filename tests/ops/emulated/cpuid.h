// Stands in for the compiler's header: a processor, and a system, that have all that is emulated (immintrin.h).
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#define __builtin_cpu_supports(name) true
#define syscall(...) 0

static inline int __get_cpuid_count(unsigned, unsigned, unsigned* eax, unsigned* ebx, unsigned* ecx, unsigned* edx) {
  *eax = *ebx = *ecx = *edx = ~0u;
  return 1;
}
