// Tables of the instruction-set levels.  Compiled for the lowest level, since it decides which of them run.
#include "registry/levels.hpp"

#include "host/kernels.hpp"  // for host::posterior, host::phase_cost
#include "simd/levels.hpp"   // for the kernels of every level

#include <cstdio>  // for snprintf

namespace tiltwise::registry {

namespace {

#if defined(TW_LEVEL_V1) || defined(TW_LEVEL_NEON)
int always(ErrorText*) {
  return status_ok;
}
#endif

#if defined(TW_LEVEL_V3) || defined(TW_LEVEL_V4)
int require(bool supported, const char* features, ErrorText* error) {
  if (!supported) {
    std::snprintf(error->text, sizeof error->text, "this processor lacks some of %s", features);
    return status_unavailable;
  }
  return status_ok;
}

// The features are named one by one: not every compiler knows the names of the levels here.
bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}
#endif

#if defined(TW_LEVEL_V3)
int v3_available(ErrorText* error) {
  return require(has_v3(), "AVX2, FMA, BMI1, BMI2", error);
}
#endif

#if defined(TW_LEVEL_V4)
int v4_available(ErrorText* error) {
  const bool has_v4 = has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return require(has_v4, "AVX2, FMA, BMI1, BMI2, AVX-512 F, BW, CD, DQ, VL", error);
}
#endif

// The posterior is bound by exp and sorting, the cost of phases by sines: all levels share the portable ones.
#define TW_LEVEL_TABLE(level, available)                                                                       \
  const KernelTable level##_table = {abi_number,        "simd-" #level,   available,       level::project,     \
                                     level::insert,     level::score,     host::posterior, level::backproject, \
                                     level::shell_sums, level::curvature, level::condense, host::phase_cost};

#if defined(TW_LEVEL_V1)
TW_LEVEL_TABLE(v1, always)
#endif
#if defined(TW_LEVEL_V3)
TW_LEVEL_TABLE(v3, v3_available)
#endif
#if defined(TW_LEVEL_V4)
TW_LEVEL_TABLE(v4, v4_available)
#endif
#if defined(TW_LEVEL_NEON)
TW_LEVEL_TABLE(neon, always)
#endif

}  // namespace

const KernelTable* const level_tables[] = {
#if defined(TW_LEVEL_V1)
    &v1_table,
#endif
#if defined(TW_LEVEL_V3)
    &v3_table,
#endif
#if defined(TW_LEVEL_V4)
    &v4_table,
#endif
#if defined(TW_LEVEL_NEON)
    &neon_table,
#endif
    nullptr,
};

}  // namespace tiltwise::registry
