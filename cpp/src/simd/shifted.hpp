// Tiles of shifted images, the operand that `score` and `backproject` share.
#pragma once

#include "tiltwise/body/residual.hpp"  // for shifted_image

#include <cstdint>  // for int64_t

namespace tiltwise::simd {

/// Writes image * phase for `count` components as interleaved floats, and zeros up to `padded` floats.
TW_HD void pack_shifted(const ComplexF* image, const ComplexF* phase, std::int64_t count, std::int64_t padded,
                        float* out) {
  for (std::int64_t k = 0; k < count; ++k) {
    const ComplexF value = body::shifted_image(image[k], phase[k]);
    out[2 * k] = value.re;
    out[2 * k + 1] = value.im;
  }
  for (std::int64_t i = 2 * count; i < padded; ++i) {
    out[i] = 0.0f;
  }
}

}  // namespace tiltwise::simd
