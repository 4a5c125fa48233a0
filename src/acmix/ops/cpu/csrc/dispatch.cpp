// Which build of the kernels runs: the best that the processor has, at most the one that ACMIX_INSTRUCTIONS names.
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace acmix {
namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Linux lends tiles to a process that asks for them, and to its threads.
bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr unsigned bfloat16 = 1u << 22, tiles = 1u << 24;
  constexpr long request_permission = 0x1023, tile_data = 18;
  unsigned eax, ebx, ecx, edx;
  if (!has_avx512() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  if (!(edx & bfloat16) || !(edx & tiles)) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

struct Build {
  const char* name;
  bool (*runs)();
  const Kernels& (*kernels)(bool is_double);
};

constexpr Build builds[] = {
#if defined(__x86_64__)
    {"amx", has_amx, amx::kernels},          {"avx512_bf16", has_avx512_bf16, avx512_bf16::kernels},
    {"avx512", has_avx512, avx512::kernels}, {"avx2", has_avx2, avx2::kernels},
#endif
    {"baseline", always, baseline::kernels},
};

// None if ACMIX_INSTRUCTIONS names none.
const Build* choose() {
  const char* most = std::getenv("ACMIX_INSTRUCTIONS");
  bool allowed = !most || !*most;
  for (const Build& build : builds) {
    allowed = allowed || std::strcmp(most, build.name) == 0;
    if (allowed && build.runs()) return &build;
  }
  return nullptr;
}

const Build* chosen() {
  static const Build* const build = choose();
  return build;
}

}  // namespace

const Kernels& best_kernels(bool is_double) { return chosen()->kernels(is_double); }

}  // namespace acmix

// The name of the instruction set that the kernels use, null if the wanted one is unknown.
extern "C" __attribute__((visibility("default"))) const char* acmix_instructions() {
  const acmix::Build* build = acmix::chosen();
  return build ? build->name : nullptr;
}
