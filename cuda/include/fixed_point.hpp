// Sums whose bytes do not depend on the order of their terms: integers in units of a power of two.
//
// Integer addition is associative, so atomics may come in any order.  The unit is chosen per Fourier shell
// from the largest term that can reach it: spectra fall by many orders of magnitude, and one unit for all
// shells would round the weak ones away.  The unit is 2^-42 (2e-13) of the largest term within two shells.
#pragma once

#include "tiltwise/base/hd.hpp"   // for TW_HD
#include "tiltwise/math/vec.hpp"  // for Vec3, dot

#include <cmath>    // for fabs, llrint, sqrt
#include <cstdint>  // for int32_t, int64_t, uint32_t
#include <cstring>  // for memcpy

namespace tiltwise::cuda {

/// Terms of one voxel that can be added before the sum must be emptied.
constexpr int log2_terms = 20;
/// Terms lie below 2^term_bits, so their sums below 2^62.
constexpr int term_bits = 62 - log2_terms;
/// A sample adds to voxels at most this many shells away: the distance is below sqrt(3), rounding adds one.
constexpr int shell_reach = 2;

/// Shell of a sample; samples lie within half the volume.
TW_HD std::int32_t shell_of_point(Vec3 p) {
  return static_cast<std::int32_t>(::sqrt(static_cast<double>(dot(p, p))) + 0.5);
}

/// Shell of a voxel; rows and planes in FFT order.
TW_HD std::int32_t shell_of_voxel(std::int32_t x, std::int32_t y, std::int32_t z, std::int32_t size) {
  const double sx = x, sy = y > size / 2 ? y - size : y, sz = z > size / 2 ? z - size : z;
  return static_cast<std::int32_t>(::sqrt(sx * sx + sy * sy + sz * sz) + 0.5);
}

/// Number of shells of a volume, corners included.
TW_HD std::int32_t shell_count(std::int32_t size) {
  return static_cast<std::int32_t>(::sqrt(3.0) * (size / 2 + 1)) + shell_reach + 1;
}

/// |value| as an integer that orders like it; 0 for what is not finite.
TW_HD std::uint32_t magnitude_bits(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits &= 0x7fffffffu;
  return bits < 0x7f800000u ? bits : 0u;
}

/// Units per 1 for terms of at most the magnitude with these bits: a power of two.
TW_HD double units_for(std::uint32_t largest) {
  float magnitude;
  memcpy(&magnitude, &largest, sizeof magnitude);
  int exponent = 0;
  ::frexp(static_cast<double>(magnitude), &exponent);  // magnitude < 2^exponent
  return ::ldexp(1.0, term_bits - exponent);
}

TW_HD bool is_finite(double value) {
  return ::fabs(value) <= 1.7976931348623157e308;  // false for NaN
}

/// Value in units, rounded to nearest.
TW_HD unsigned long long to_fixed(double value, double units) {
  // two's complement: sums of unsigned numbers wrap to the sums of signed ones
  return static_cast<unsigned long long>(::llrint(value * units));
}

TW_HD double from_fixed(unsigned long long sum, double units) {
  return static_cast<double>(static_cast<long long>(sum)) / units;
}

}  // namespace tiltwise::cuda
