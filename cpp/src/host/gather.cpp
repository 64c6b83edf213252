// See gather.hpp.  Rows of voxels along x cross a slice in one interval, which is solved for instead of searched.
#include "gather.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for

#include <algorithm>  // for max, min
#include <cmath>      // for abs, ceil, floor, sqrt

namespace tiltwise {
namespace {

/// 1 / slope.  A slope of zero becomes tiny: an interval is then everything, or nothing.
double inverse(double slope) {
  return 1.0 / (std::abs(slope) < 1e-9 ? 1e-9 : slope);
}

/// Clips [low, high] to the x with `from` < slope x < `to`.
void clip(double from, double to, double inverse_slope, double& low, double& high) {
  const double a = from * inverse_slope, b = to * inverse_slope;
  low = std::max(low, std::min(a, b));
  high = std::min(high, std::max(a, b));
}

struct Slice {
  const ComplexF* data;
  const float* weight;
  std::int64_t size, half;

  /// Adds one corner of the bilinear sample; corners beyond the stored frequencies do not exist.
  void corner(std::int64_t x, std::int64_t y, double factor, bool conjugate, ComplexD& value, double& mass) const {
    if (x >= half || y > size / 2 || y < -(size / 2))
      return;
    const std::int64_t row = y < 0 ? y + size : (y == size ? 0 : y);
    const std::int64_t i = (row % size) * half + x;
    value.re += factor * data[i].re;
    value.im += factor * (conjugate ? -data[i].im : data[i].im);
    mass += factor * weight[i];
  }

  void sample(double px, double py, double factor, ComplexD& value, double& mass) const {
    const bool folded = px < 0;
    if (folded)
      px = -px, py = -py;
    const auto x = static_cast<std::int64_t>(px);  // px >= 0: truncation is floor
    const auto y = static_cast<std::int64_t>(py + static_cast<double>(size)) - size;
    const double u = px - static_cast<double>(x), v = py - static_cast<double>(y);
    const double a = factor * (1 - u) * (1 - v), b = factor * u * (1 - v), c = factor * (1 - u) * v, d = factor * u * v;
    if (x + 1 < half && y >= -(size / 2) && y + 1 < size / 2) {
      // all four corners are stored; rows y and y + 1 may lie at both ends of the array
      const std::int64_t i = (y < 0 ? y + size : y) * half + x;
      const std::int64_t j = (y + 1 < 0 ? y + 1 + size : y + 1) * half + x;
      const double re = a * data[i].re + b * data[i + 1].re + c * data[j].re + d * data[j + 1].re;
      const double im = a * data[i].im + b * data[i + 1].im + c * data[j].im + d * data[j + 1].im;
      value.re += re;
      value.im += folded ? -im : im;
      mass += a * weight[i] + b * weight[i + 1] + c * weight[j] + d * weight[j + 1];
      return;
    }
    corner(x, y, a, folded, value, mass);
    corner(x + 1, y, b, folded, value, mass);
    corner(x, y + 1, c, folded, value, mass);
    corner(x + 1, y + 1, d, folded, value, mass);
  }
};

void gather_plane(const GatherArgs& args, std::int64_t iz) {
  const std::int64_t size = args.size, half = size / 2 + 1;
  const double z = static_cast<double>(iz < (size + 1) / 2 ? iz : iz - size);
  for (std::int64_t i = 0; i < args.n; ++i) {
    const double* m = args.matrices + 9 * i;
    const double limit2 = args.limits[i] * args.limits[i];
    if (limit2 < z * z)
      continue;
    const double inverse_slope = inverse(m[6]);
    const Slice slice{args.slices + i * size * half, args.weights + i * size * half, size, half};
    // Rows that cross the slab |p_z| < 1 somewhere in x in [0, half - 1], inside the sphere.
    const double reach = m[6] * static_cast<double>(half - 1), radius = std::sqrt(limit2 - z * z);
    double bottom = std::max(-std::floor(radius), static_cast<double>(-(size / 2)));
    double top = std::min(std::floor(radius), static_cast<double>((size - 1) / 2));
    clip(-1.0 - m[8] * z - std::max(reach, 0.0), 1.0 - m[8] * z - std::min(reach, 0.0), inverse(m[7]), bottom, top);
    const auto last_row = static_cast<std::int64_t>(std::floor(top));
    for (auto row = static_cast<std::int64_t>(std::ceil(bottom)); row <= last_row; ++row) {
      const double y = static_cast<double>(row), offset = m[7] * y + m[8] * z;
      double low = 0, high = static_cast<double>(half - 1);
      clip(-1.0 - offset, 1.0 - offset, inverse_slope, low, high);
      if (low > high)
        continue;
      const double room = limit2 - z * z - y * y;
      const std::int64_t first_voxel = (iz * size + (row < 0 ? row + size : row)) * half;
      const auto first = static_cast<std::int64_t>(std::ceil(low)), last = static_cast<std::int64_t>(std::floor(high));
      for (std::int64_t x = first; x <= last; ++x) {
        const double fx = static_cast<double>(x);
        const double pz = m[6] * fx + m[7] * y + m[8] * z;
        const double factor = 1.0 - std::abs(pz);
        if (!(factor > 0) || fx * fx > room)
          continue;
        slice.sample(m[0] * fx + m[1] * y + m[2] * z, m[3] * fx + m[4] * y + m[5] * z, factor,
                     args.data[first_voxel + x], args.weight[first_voxel + x]);
      }
    }
  }
}

}  // namespace

void gather_slices(const GatherArgs& args) {
  parallel_for(args.size, args.threads, [&](std::int64_t z, std::int32_t) { gather_plane(args, z); });
}

}  // namespace tiltwise
