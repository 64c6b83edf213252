// Tables of the instruction-set levels.  Compiled for the lowest level, since it decides which of them run.
#include "registry/levels.hpp"

#include "host/kernels.hpp"  // for host::posterior, host::phase_cost, host::cc_cost
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
bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

int v4_available(ErrorText* error) {
  return require(has_v4(), "AVX2, FMA, BMI1, BMI2, AVX-512 F, BW, CD, DQ, VL", error);
}
#endif

#if defined(TW_LEVEL_BF16)
int bf16_available(ErrorText* error) {
  return require(has_v4() && __builtin_cpu_supports("avx512bf16"),
                 "AVX2, FMA, BMI1, BMI2, AVX-512 F, BW, CD, DQ, VL, BF16", error);
}
#endif

// The posterior is bound by exp and sorting, the cost of phases by sines, that of correlations by loads from all over
// memory: all levels share the portable ones.
#define TW_LEVEL_TABLE(level, available)                                                          \
  const KernelTable level##_table = {                                                             \
      abi_number,      "simd-" #level,   available,          level::project,    level::insert,    \
      level::score,    host::posterior,  level::backproject, level::shell_sums, level::curvature, \
      level::condense, host::phase_cost, level::cc_table,    host::cc_cost,     0};

#if defined(TW_LEVEL_V1)
TW_LEVEL_TABLE(v1, always)
#endif
#if defined(TW_LEVEL_V3)
TW_LEVEL_TABLE(v3, v3_available)
#endif
#if defined(TW_LEVEL_V4)
TW_LEVEL_TABLE(v4, v4_available)
#endif
#if defined(TW_LEVEL_BF16)
const KernelTable bf16_table = {abi_number,   "simd-v4-bf16",   bf16_available,  v4::project,    v4::insert,
                                bf16::score,  host::posterior,  v4::backproject, v4::shell_sums, v4::curvature,
                                v4::condense, host::phase_cost, v4::cc_table,    host::cc_cost,  1};
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
#if defined(TW_LEVEL_BF16)
    &bf16_table,
#endif
#if defined(TW_LEVEL_NEON)
    &neon_table,
#endif
    nullptr,
};

}  // namespace tiltwise::registry
