// Terms of the expanded weighted residual of one Fourier component (Eqs. 2, 4, 7'):
//   log L = sum over the full plane of  Re( conj(V) Y phase ) - 1/2 B |V|^2,
// with Y = C X / sigma^2 and B = C^2 / sigma^2.
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/math/complex.hpp"  // for ComplexF, multiply

namespace tiltwise::body {

/// Y * phase: the image of a particle displaced by d_t, moved back to the centre (Eq. 3).
TW_HD ComplexF shifted_image(ComplexF image, ComplexF phase) {
  return multiply(image, phase);
}

/// sum + Re( conj(v) * shifted ).
TW_HD float add_cross(float sum, ComplexF v, ComplexF shifted) {
  return mul_add(v.im, shifted.im, mul_add(v.re, shifted.re, sum));
}

/// sum + power * |v|^2.
TW_HD float add_quadratic(float sum, ComplexF v, float power) {
  return mul_add(power, mul_add(v.im, v.im, v.re * v.re), sum);
}

}  // namespace tiltwise::body
