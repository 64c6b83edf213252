// Correlations of images with their predictions as functions of a shift (Eqs. 31-33), one element at a time.
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/math/complex.hpp"  // for ComplexF
#include "tiltwise/math/scalar.hpp"   // for mul_add

#include <cstdint>  // for int64_t

namespace tiltwise::body {

/// What one component of one image adds: w conj(V) X, and w B |V|^2.
struct CcTerm {
  ComplexF cross;
  float energy;
};

TW_HD CcTerm cc_term(ComplexF v, ComplexF x, float power, float weight) {
  const float re = mul_add(v.re, x.re, v.im * x.im), im = mul_add(v.re, x.im, -(v.im * x.re));
  return {{weight * re, weight * im}, weight * power * mul_add(v.re, v.re, v.im * v.im)};
}

/// Components (kx, ky) and (kx, -ky) of an image, ky > 0: their sum and their difference.  Shifts of opposite sign
/// share their sums, which halves the work on either axis.
struct CcFolded {
  ComplexF even, odd;
};

/// Adds a component; `side` is the sign of ky, or 0.
TW_HD void add_folded(CcFolded& folded, ComplexF z, float side) {
  folded.even = {folded.even.re + z.re, folded.even.im + z.im};
  folded.odd = {mul_add(side, z.re, folded.odd.re), mul_add(side, z.im, folded.odd.im)};
}

/// After the sums over kx, at a shift +d and at -d: real part of what is even in ky, imaginary part of what is odd.
template <class Real>
struct CcRow {
  Real even_plus, even_minus, odd_plus, odd_minus;
};

/// From sums over kx of (even.re cos), (even.im sin), (odd.re sin), (odd.im cos).
template <class Real>
TW_HD CcRow<Real> cc_row(Real even_re, Real even_im, Real odd_re, Real odd_im) {
  return {even_re - even_im, even_re + even_im, odd_im + odd_re, odd_im - odd_re};
}

/// Correlations at +d and -d of the other axis, from sums over ky of (even cos) and (odd sin).
template <class Real>
struct CcPair {
  Real plus, minus;
};

template <class Real>
TW_HD CcPair<Real> cc_pair(Real even, Real odd) {
  return {even - odd, even + odd};
}

/// Cubic B-spline at the four points around a place, with two derivatives; t in [0, 1).
struct SplineWeights {
  double value[4], slope[4], bend[4];
};

TW_HD SplineWeights spline_weights(double t) {
  const double s = 1.0 - t;
  return {
      {s * s * s / 6.0, (4.0 - 3.0 * t * t * (2.0 - t)) / 6.0, (4.0 - 3.0 * s * s * (2.0 - s)) / 6.0, t * t * t / 6.0},
      {-s * s / 2.0, t * (3.0 * t - 4.0) / 2.0, s * (4.0 - 3.0 * s) / 2.0, t * t / 2.0},
      {s, 3.0 * t - 2.0, 3.0 * s - 2.0, t}};
}

/// Value, gradient in x and y, and second derivatives xx, xy, yy of a table (size, size) at a shift from its middle, in
/// points; all zero where any of the four points on either axis lies outside, and for NaN.
TW_HD void cc_cost(const float* table, std::int64_t size, double x, double y, double* out) {
  const auto middle = static_cast<double>(size / 2), last = static_cast<double>(size - 2);
  x += middle;
  y += middle;
  double value = 0.0, dx = 0.0, dy = 0.0, dxx = 0.0, dxy = 0.0, dyy = 0.0;
  if (x >= 1.0 && x < last && y >= 1.0 && y < last) {
    const auto column = static_cast<std::int64_t>(x), row = static_cast<std::int64_t>(y);
    const SplineWeights wx = spline_weights(x - static_cast<double>(column));
    const SplineWeights wy = spline_weights(y - static_cast<double>(row));
    const float* line = table + (row - 1) * size + (column - 1);
    for (int i = 0; i < 4; ++i, line += size) {
      double along = 0.0, slope = 0.0, bend = 0.0;
      for (int j = 0; j < 4; ++j) {
        const auto coefficient = static_cast<double>(line[j]);
        along = mul_add(wx.value[j], coefficient, along);
        slope = mul_add(wx.slope[j], coefficient, slope);
        bend = mul_add(wx.bend[j], coefficient, bend);
      }
      value = mul_add(wy.value[i], along, value);
      dx = mul_add(wy.value[i], slope, dx);
      dy = mul_add(wy.slope[i], along, dy);
      dxx = mul_add(wy.value[i], bend, dxx);
      dxy = mul_add(wy.slope[i], slope, dxy);
      dyy = mul_add(wy.bend[i], along, dyy);
    }
  }
  out[0] = value;
  out[1] = dx;
  out[2] = dy;
  out[3] = dxx;
  out[4] = dxy;
  out[5] = dyy;
}

}  // namespace tiltwise::body
