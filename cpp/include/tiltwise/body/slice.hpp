// Where one Fourier component of an image falls in a half-complex volume, and its eight trilinear
// weights.  Eqs. 3, 6 (project) and their transpose, Eqs. 8-10 (insert).
//
// Volume layout: (size, size, size / 2 + 1), axes z, y, x; frequency zero at index 0; y and z in FFT order.
#pragma once

#include "tiltwise/base/hd.hpp"       // for TW_HD
#include "tiltwise/math/complex.hpp"  // for ComplexF, ComplexD
#include "tiltwise/math/vec.hpp"      // for Vec3, transform

#include <cstdint>  // for int32_t, int64_t

namespace tiltwise::body {

/// A sample after the Friedel fold onto p_x >= 0.  `x` is the lower column (the upper one is x + 1);
/// rows and planes are wrapped into [0, size).  `f*` are the fractions of the upper neighbours.
/// Samples that are not `inside` have all coordinates zero and must be skipped: they read as zero and
/// are not inserted.
struct GridSample {
  std::int32_t x, y0, y1, z0, z1;
  float fx, fy, fz;
  bool inside;
  bool fold;  ///< the value belongs to -p: take the conjugate
};

/// Coordinate in the volume, p = matrix @ frequency.
TW_HD Vec3 sample_point(const float* matrix, const float* frequency) {
  return transform(matrix, {frequency[0], frequency[1], frequency[2]});
}

TW_HD std::int32_t wrap(std::int32_t index, std::int32_t size) {
  return index + (index < 0 ? size : 0);
}

/// Fold, radius rule and neighbours of a point.  Branch-free, so that loops over it vectorise.
/// Requires radius <= size / 2, which keeps x + 1 <= size / 2 and y1, z1 < size.
TW_HD GridSample grid_sample(Vec3 p, float radius_squared, std::int32_t size) {
  GridSample s;
  s.inside = dot(p, p) < radius_squared;  // false for NaN
  s.fold = p.x < 0.0f;
  const float sign = s.inside ? (s.fold ? -1.0f : 1.0f) : 0.0f;
  // select, do not multiply: 0 * inf would be NaN and its conversion to an integer is undefined
  const float px = s.inside ? p.x * sign : 0.0f;
  const float py = s.inside ? p.y * sign : 0.0f;
  const float pz = s.inside ? p.z * sign : 0.0f;
  const std::int32_t x = floor_to_int(px), y = floor_to_int(py), z = floor_to_int(pz);
  s.fx = px - static_cast<float>(x);
  s.fy = py - static_cast<float>(y);
  s.fz = pz - static_cast<float>(z);
  s.x = x;
  s.y0 = wrap(y, size);
  s.y1 = wrap(y + 1, size);
  s.z0 = wrap(z, size);
  s.z1 = wrap(z + 1, size);
  return s;
}

/// Flat index of column x of row (z, y).
TW_HD std::int64_t voxel_index(std::int32_t x, std::int32_t y, std::int32_t z, std::int64_t size) {
  return (z * size + y) * (size / 2 + 1) + x;
}

/// Weights of the four rows (z0,y0), (z0,y1), (z1,y0), (z1,y1) that hold the neighbours.
struct RowWeights {
  float w00, w01, w10, w11;
};

TW_HD RowWeights row_weights(float fy, float fz) {
  const float gy = 1.0f - fy, gz = 1.0f - fz;
  return {gz * gy, gz * fy, fz * gy, fz * fy};
}

/// Trilinear value of the volume at a sample that is inside.
TW_HD ComplexF interpolate(const ComplexF* volume, const GridSample& s, std::int64_t size) {
  const RowWeights w = row_weights(s.fy, s.fz);
  const ComplexF* row[4] = {volume + voxel_index(s.x, s.y0, s.z0, size), volume + voxel_index(s.x, s.y1, s.z0, size),
                            volume + voxel_index(s.x, s.y0, s.z1, size), volume + voxel_index(s.x, s.y1, s.z1, size)};
  const float weight[4] = {w.w00, w.w01, w.w10, w.w11};
  ComplexF lower = {0.0f, 0.0f}, upper = {0.0f, 0.0f};
  for (int i = 0; i < 4; ++i) {
    lower.re = mul_add(weight[i], row[i][0].re, lower.re);
    lower.im = mul_add(weight[i], row[i][0].im, lower.im);
    upper.re = mul_add(weight[i], row[i][1].re, upper.re);
    upper.im = mul_add(weight[i], row[i][1].im, upper.im);
  }
  const float gx = 1.0f - s.fx;
  const ComplexF value = {mul_add(s.fx, upper.re, gx * lower.re), mul_add(s.fx, upper.im, gx * lower.im)};
  return s.fold ? conj(value) : value;
}

/// What a sample adds to one of its eight voxels: the value (folded) and the weight, in double.
struct Deposit {
  ComplexD data;
  double weight;
};

TW_HD Deposit deposit(ComplexF value, float sample_weight, bool fold, float corner_weight) {
  const double c = corner_weight;
  return {{c * value.re, c * (fold ? -value.im : value.im)}, c * sample_weight};
}

/// Weight of a voxel from its row weight and its column (0: x, 1: x + 1).
TW_HD float corner_weight(float row_weight, float fx, int column) {
  return row_weight * (column != 0 ? fx : 1.0f - fx);
}

}  // namespace tiltwise::body
