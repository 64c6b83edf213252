// Where samples fall: worked examples of folding, wrapping and weights.
#include "harness.hpp"

#include "tiltwise/body/slice.hpp"  // for grid_sample, interpolate, deposit

#include <cmath>   // for isnan, fabs
#include <limits>  // for quiet_NaN, infinity
#include <vector>  // for vector

namespace {

using namespace tiltwise;

void floors_like_the_library() {
  for (const float x : {0.0f, -0.0f, 0.5f, -0.5f, 1.0f, -1.0f, 2.999f, -2.001f, -3.0f, 1e-30f, -1e-30f}) {
    EXPECT(floor_to_int(x) == static_cast<std::int32_t>(std::floor(x)));
  }
}

void folds_and_wraps() {
  // p_x < 0: the mate at -p = (1.25, 2.5, -0.5) is read; z = -0.5 lies between planes 9 and 0
  const body::GridSample s = body::grid_sample({-1.25f, -2.5f, 0.5f}, 25.0f, 10);
  EXPECT(s.inside && s.fold);
  EXPECT(s.x == 1 && s.y0 == 2 && s.y1 == 3 && s.z0 == 9 && s.z1 == 0);
  EXPECT(s.fx == 0.25f && s.fy == 0.5f && s.fz == 0.5f);
  // p_x = 0 is not folded, nor is negative zero
  EXPECT(!body::grid_sample({-0.0f, -1.0f, 0.0f}, 25.0f, 10).fold);
  // just inside the edge of an even and of an odd volume
  const body::GridSample even = body::grid_sample({0.0f, -4.9f, 4.9f / 8}, 25.0f, 10);
  EXPECT(even.inside && even.y0 == 5 && even.y1 == 6);
  const body::GridSample odd = body::grid_sample({4.9f, 0.0f, 0.0f}, 25.0f, 11);
  EXPECT(odd.inside && odd.x == 4);  // column 5 is the last
}

void the_radius_is_outside() {
  EXPECT(!body::grid_sample({3.0f, 0.0f, 0.0f}, 9.0f, 10).inside);
  EXPECT(body::grid_sample({2.9999f, 0.0f, 0.0f}, 9.0f, 10).inside);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, infinity, -infinity}) {
    const body::GridSample s = body::grid_sample({bad, 0.0f, bad}, 9.0f, 10);
    EXPECT(!s.inside && s.x == 0 && s.y0 == 0 && s.z0 == 0 && s.fx == 0.0f);
  }
}

/// Trilinear interpolation is exact for linear functions.
void reproduces_linear_functions() {
  const std::int64_t size = 8, half = size / 2 + 1;
  std::vector<ComplexF> volume(static_cast<std::size_t>(size * size * half));
  for (std::int32_t z = 0; z < size; ++z) {
    for (std::int32_t y = 0; y < size; ++y) {
      for (std::int32_t x = 0; x < half; ++x) {
        const auto index = static_cast<std::size_t>(body::voxel_index(x, y, z, size));
        volume[index] = {static_cast<float>(x + 10 * y), static_cast<float>(100 * z)};
      }
    }
  }
  const body::GridSample s = body::grid_sample({1.25f, 2.5f, 1.75f}, 16.0f, 8);
  const ComplexF value = body::interpolate(volume.data(), s, size);
  EXPECT(std::fabs(value.re - 26.25f) <= 1e-5f);
  EXPECT(std::fabs(value.im - 175.0f) <= 1e-4f);
  const body::GridSample mate = body::grid_sample({-1.25f, -2.5f, -1.75f}, 16.0f, 8);
  const ComplexF conjugate = body::interpolate(volume.data(), mate, size);
  EXPECT(conjugate.re == value.re && conjugate.im == -value.im);
}

void deposits_conjugates_of_folded_samples() {
  const body::Deposit d = body::deposit({2.0f, 3.0f}, 4.0f, true, 0.5f);
  EXPECT(d.data.re == 1.0 && d.data.im == -1.5 && d.weight == 2.0);
  EXPECT(body::corner_weight(0.5f, 0.25f, 0) == 0.375f);
  EXPECT(body::corner_weight(0.5f, 0.25f, 1) == 0.125f);
}

void indices_need_64_bits() {
  EXPECT(body::voxel_index(1, 2047, 2047, 2048) == (std::int64_t{2047} * 2048 + 2047) * 1025 + 1);
}

}  // namespace

int main() {
  return harness::run_all({{"floors like the library", floors_like_the_library},
                           {"folds and wraps", folds_and_wraps},
                           {"the radius is outside", the_radius_is_outside},
                           {"reproduces linear functions", reproduces_linear_functions},
                           {"deposits conjugates of folded samples", deposits_conjugates_of_folded_samples},
                           {"indices need 64 bits", indices_need_64_bits}});
}
