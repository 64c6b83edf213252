// Elements of the M-step: posterior weights (Eq. 1), posterior-weighted sums (Eq. 11) and the products
// that are summed over Fourier shells (Eqs. 12, 13, FSC).
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/math/complex.hpp"  // for ComplexF, mul_add

#include <cmath>  // for exp

namespace tiltwise::body {

/// log of likelihood x prior of one pose.
TW_HD double log_joint(float log_likelihood, float log_prior_rotation, float log_prior_shift) {
  return static_cast<double>(log_likelihood) + static_cast<double>(log_prior_rotation) +
         static_cast<double>(log_prior_shift);
}

/// Unnormalised posterior relative to the best pose; zero below the range of exp.
TW_HD double relative_weight(double joint, double top) {
  const double exponent = joint - top;
  return exponent < -745.2 ? 0.0 : ::exp(exponent);
}

/// sum + weight * value.
TW_HD ComplexF add_weighted(ComplexF sum, float weight, ComplexF value) {
  return {mul_add(weight, value.re, sum.re), mul_add(weight, value.im, sum.im)};
}

/// Re( conj(a) * b ) in double, from float inputs: the two products are exact.
TW_HD double real_product(ComplexF a, ComplexF b) {
  return mul_add(static_cast<double>(a.im), static_cast<double>(b.im),
                 static_cast<double>(a.re) * static_cast<double>(b.re));
}

}  // namespace tiltwise::body
