// Fits of CTF phases (Eqs. 23-28): what many particles say about one Fourier pixel of a tilt, and what that is worth.
//
// A CTF whose phase gamma is off by d is -sin(gamma + d) = u . d_p with u = (cos d, sin d) and, for every particle,
// d_p = -(sin gamma, cos gamma).  (The printed Eq. 25 has the components in the other order.)
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/body/phase.hpp"    // for unit_phase
#include "tiltwise/math/complex.hpp"  // for ComplexF
#include "tiltwise/math/scalar.hpp"   // for floor_to_int, mul_add

#include <cmath>    // for cos, sin
#include <cstdint>  // for int64_t

namespace tiltwise::body {

/// exp(i gamma), gamma in turns: that of a group plus what the depth of a particle adds.
TW_HD ComplexF ctf_wave(float turns, float slope, float depth) {
  const float t = mul_add(slope, depth, turns);
  return unit_phase((t - static_cast<float>(floor_to_int(t + 0.5f))) * 6.2831853f);
}

/// Adds one component of one image to the sums of its pixel; row r of them is sums[r * stride].
TW_HD void add_condensed(double* sums, std::int64_t stride, ComplexF v, ComplexF x, ComplexF wave) {
  const float energy = mul_add(v.re, v.re, v.im * v.im);
  const float cross = mul_add(v.re, x.re, v.im * x.im);      // Re X V*
  const float turned = mul_add(v.re, x.im, -(v.im * x.re));  // Im X V*
  sums[0] += static_cast<double>(energy * wave.im * wave.im);
  sums[stride] += static_cast<double>(energy * wave.im * wave.re);
  sums[2 * stride] += static_cast<double>(energy * wave.re * wave.re);
  sums[3 * stride] -= static_cast<double>(cross * wave.im);
  sums[4 * stride] -= static_cast<double>(cross * wave.re);
  sums[5 * stride] -= static_cast<double>(turned * wave.im);
  sums[6 * stride] -= static_cast<double>(turned * wave.re);
  sums[7 * stride] += static_cast<double>(mul_add(x.re, x.re, x.im * x.im));
}

/// Linear and quadratic part of the cost of one pixel at a phase error d, with two derivatives: b.u and u.R.u.
struct PhaseCost {
  double linear[3];
  double quadratic[3];
};

TW_HD PhaseCost phase_cost(double d, double r00, double r01, double r11, double b0, double b1) {
  const double c = ::cos(d), s = ::sin(d);
  const double linear = b0 * c + b1 * s;
  const double mixed = 2.0 * r01 * c * s;
  const double square = r00 * c * c + mixed + r11 * s * s;
  return {{linear, b1 * c - b0 * s, -linear},
          {square, 2.0 * ((r11 - r00) * c * s + r01 * (c * c - s * s)),
           2.0 * (r00 * s * s - 2.0 * mixed + r11 * c * c - (r00 * c * c + r11 * s * s))}};
}

/// Sums per item of either part for n parameters: value, gradient, upper triangle of the second derivatives.
TW_HD std::int64_t phase_terms(std::int64_t n) {
  return 1 + n + n * (n + 1) / 2;
}

}  // namespace tiltwise::body
