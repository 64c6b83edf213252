// Scalar helpers whose rounding does not depend on the code around them.
#pragma once

#include "tiltwise/base/hd.hpp"  // for TW_HD

#include <cstdint>  // for int32_t

namespace tiltwise {

/// a * b + c, fused where the target has the instruction.  The core is compiled without implicit
/// contraction and asks for fusion by this name: two kernels that evaluate the same body then round
/// alike, and `insert` stays the exact transpose of `project`.
TW_HD float mul_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

TW_HD double mul_add(double a, double b, double c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// Largest integer not above x, for |x| < 2^31; no library call and no branch, so loops vectorise.
TW_HD std::int32_t floor_to_int(float x) {
  const auto truncated = static_cast<std::int32_t>(x);
  return truncated - static_cast<std::int32_t>(x < static_cast<float>(truncated));
}

}  // namespace tiltwise
