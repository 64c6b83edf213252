// Vectors of three components and products with row-major 3x3 matrices.
#pragma once

#include "tiltwise/base/hd.hpp"      // for TW_HD
#include "tiltwise/math/scalar.hpp"  // for mul_add

namespace tiltwise {

struct Vec3 {
  float x, y, z;
};

TW_HD float dot(Vec3 a, Vec3 b) {
  return mul_add(a.z, b.z, mul_add(a.y, b.y, a.x * b.x));
}

/// matrix (row-major, 9 numbers) times v.
TW_HD Vec3 transform(const float* matrix, Vec3 v) {
  return {dot({matrix[0], matrix[1], matrix[2]}, v), dot({matrix[3], matrix[4], matrix[5]}, v),
          dot({matrix[6], matrix[7], matrix[8]}, v)};
}

}  // namespace tiltwise
