// exp(i theta) in single precision: the same bits on every backend, and branch-free, so that loops vectorise.
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/math/complex.hpp"  // for ComplexF
#include "tiltwise/math/scalar.hpp"   // for floor_to_int, mul_add

#include <cstdint>  // for int32_t

namespace tiltwise::body {

/// For |theta| up to some thousand radians: absolute error about 1e-7, besides that of theta itself.
/// Reduction to [-pi/4, pi/4] and the minimax polynomials of the Cephes library.
TW_HD ComplexF unit_phase(float theta) {
  const std::int32_t quadrant = floor_to_int(mul_add(theta, 0.636619772f, 0.5f));  // round(theta * 2 / pi)
  const float n = static_cast<float>(quadrant);
  // pi / 2 in three parts, the first two exact when multiplied by a small whole number
  float r = mul_add(n, -1.5703125f, theta);
  r = mul_add(n, -4.837512969970703125e-4f, r);
  r = mul_add(n, -7.54978995489188216e-8f, r);
  const float z = r * r;
  float sine = mul_add(-1.9515295891e-4f, z, 8.3321608736e-3f);
  sine = mul_add(sine, z, -1.6666654611e-1f);
  sine = mul_add(sine * z, r, r);
  float cosine = mul_add(2.443315711809948e-5f, z, -1.388731625493765e-3f);
  cosine = mul_add(cosine, z, 4.166664568298827e-2f);
  cosine = mul_add(cosine * z, z, mul_add(-0.5f, z, 1.0f));
  const bool swap = (quadrant & 1) != 0;
  const float re = swap ? sine : cosine, im = swap ? cosine : sine;
  const bool negative_re = ((quadrant + 1) & 2) != 0, negative_im = (quadrant & 2) != 0;
  return {negative_re ? -re : re, negative_im ? -im : im};
}

}  // namespace tiltwise::body
