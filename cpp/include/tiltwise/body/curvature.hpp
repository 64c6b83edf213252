// Value, gradient and curvature of the likelihood of one image (Eq. 4) in its rotation and shift.
//
// The slice of a pose turned by small angles w about the image's axes, of an image whose particle has moved by a
// phase slope t, is m(w, t) = V(M exp(-[w]x) k) exp(-i k.t).  Its derivatives at zero are
//   dm/dw = g x k,   g = M^T grad V,   k = (kx, ky, kz)
//   dm/dt = -i k V.
// With residuals Y - B V, gradients are Re sum conj(dm) (Y - B V), and the curvature of the expected likelihood
// (Gauss-Newton, Fisher information) Re sum B conj(dm_a) dm_b.
#pragma once

#include "tiltwise/base/hd.hpp"     // for TW_HD
#include "tiltwise/body/slice.hpp"  // for GridSample, voxel_index

#include <cstdint>  // for int64_t

namespace tiltwise::body {

/// Value of the volume and its gradient in volume coordinates, exact for the trilinear function.
struct ValueAndGradient {
  ComplexF value, dx, dy, dz;
};

TW_HD ComplexF mix(float weight, ComplexF a, ComplexF b) {
  const float rest = 1.0f - weight;
  return {mul_add(weight, b.re, rest * a.re), mul_add(weight, b.im, rest * a.im)};
}

TW_HD ComplexF difference(ComplexF a, ComplexF b) {
  return {a.re - b.re, a.im - b.im};
}

/// Folded back: V(-p) = conj V(p), hence grad V at -p is -conj of that at p.
TW_HD ValueAndGradient interpolate_with_gradient(const ComplexF* volume, const GridSample& s, std::int64_t size) {
  const ComplexF* row00 = volume + voxel_index(s.x, s.y0, s.z0, size);
  const ComplexF* row01 = volume + voxel_index(s.x, s.y1, s.z0, size);
  const ComplexF* row10 = volume + voxel_index(s.x, s.y0, s.z1, size);
  const ComplexF* row11 = volume + voxel_index(s.x, s.y1, s.z1, size);
  ComplexF along_x[4], slope_x[4];
  const ComplexF* rows[4] = {row00, row01, row10, row11};
  for (int i = 0; i < 4; ++i) {
    along_x[i] = mix(s.fx, rows[i][0], rows[i][1]);
    slope_x[i] = difference(rows[i][1], rows[i][0]);
  }
  const ComplexF low = mix(s.fy, along_x[0], along_x[1]), high = mix(s.fy, along_x[2], along_x[3]);
  ValueAndGradient r;
  r.value = mix(s.fz, low, high);
  r.dz = difference(high, low);
  r.dy = mix(s.fz, difference(along_x[1], along_x[0]), difference(along_x[3], along_x[2]));
  r.dx = mix(s.fz, mix(s.fy, slope_x[0], slope_x[1]), mix(s.fy, slope_x[2], slope_x[3]));
  if (s.fold) {
    r.value.im = -r.value.im;
    r.dx.re = -r.dx.re;
    r.dy.re = -r.dy.re;
    r.dz.re = -r.dz.re;
  }
  return r;
}

/// Phase slope k.t over the first `axes` axes.
template <int axes>
TW_HD float phase_slope(float kx, float ky, float kz, const float* slope) {
  const float in_plane = mul_add(kx, slope[0], ky * slope[1]);
  return axes == 3 ? mul_add(kz, slope[2], in_plane) : in_plane;
}

/// Adds one component to the sums; shifts are along the first `axes` axes.  `Float` is a number, or a vector of them.
template <int axes, class Float>
TW_HD void add_curvature(Float* sums, Float vre, Float vim, const Float* gre, const Float* gim, Float kx, Float ky,
                         Float kz, Float yre, Float yim, Float power) {
  const Float k[3] = {kx, ky, kz};
  // dm/dw = g x k
  const Float jre[3] = {gre[1] * kz - gre[2] * ky, gre[2] * kx - gre[0] * kz, gre[0] * ky - gre[1] * kx};
  const Float jim[3] = {gim[1] * kz - gim[2] * ky, gim[2] * kx - gim[0] * kz, gim[0] * ky - gim[1] * kx};
  const Float cross = vre * yre + vim * yim, energy = power * (vre * vre + vim * vim);
  const Float rre = yre - power * vre, rim = yim - power * vim;
  sums[0] += cross;
  sums[1] += energy;
  for (int a = 0; a < 3; ++a) {
    sums[2 + a] += jre[a] * rre + jim[a] * rim;
  }
  // Re(conj(-i k V) Y) = -k Im(conj(V) Y); the part of B V vanishes
  const Float turned = vim * yre - vre * yim;
  for (int a = 0; a < axes; ++a) {
    sums[5 + a] += k[a] * turned;
  }
  int next = 5 + axes;
  for (int a = 0; a < 3; ++a) {
    const Float bre = power * jre[a], bim = power * jim[a];
    for (int b = a; b < 3; ++b) {
      sums[next++] += bre * jre[b] + bim * jim[b];
    }
    // Re(conj(J) (-i k V)) = k Im(conj(J) V)
    const Float mixed = bre * vim - bim * vre;
    for (int b = 0; b < axes; ++b) {
      sums[next++] += k[b] * mixed;
    }
  }
  for (int a = 0; a < axes; ++a) {
    const Float weighted = k[a] * energy;
    for (int b = a; b < axes; ++b) {
      sums[next++] += weighted * k[b];
    }
  }
}

}  // namespace tiltwise::body
