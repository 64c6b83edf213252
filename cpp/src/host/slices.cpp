// Slices of a volume and their transpose, one sample at a time (Eqs. 3, 6, 8-11).
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/slabs.hpp"     // for Slabs
#include "tiltwise/body/slice.hpp"     // for grid_sample, interpolate, deposit

namespace tiltwise::host {

namespace {

/// Adds the part of one sample that falls into plane z.
void deposit_plane(const InsertArgs& args, const body::GridSample& s, std::int32_t z, float row_weight0,
                   float row_weight1, ComplexF value, float weight) {
  const float row_weight[2] = {row_weight0, row_weight1};
  const std::int32_t y[2] = {s.y0, s.y1};
  for (int row = 0; row < 2; ++row) {
    const std::int64_t first = body::voxel_index(s.x, y[row], z, args.size);
    for (int column = 0; column < 2; ++column) {
      const float corner = body::corner_weight(row_weight[row], s.fx, column);
      const body::Deposit d = body::deposit(value, weight, s.fold, corner);
      args.data[first + column].re += d.data.re;
      args.data[first + column].im += d.data.im;
      args.weight[first + column] += d.weight;
    }
  }
}

}  // namespace

int project(const ProjectArgs* args, ErrorText*) {
  const ProjectArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    for (std::int64_t j = 0; j < a.k; ++j) {
      const Vec3 p = body::sample_point(a.matrices + 9 * i, a.frequencies + 3 * j);
      const body::GridSample s = body::grid_sample(p, radius_squared, size);
      a.out[i * a.k + j] = s.inside ? body::interpolate(a.volume, s, a.size) : ComplexF{0.0f, 0.0f};
    }
  });
  return status_ok;
}

int insert(const InsertArgs* args, ErrorText*) {
  const InsertArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  const Slabs slabs = {a.threads > 1 ? a.threads : 1};
  parallel_for(slabs.parts, a.threads, [&](std::int64_t part, int) {
    for (std::int64_t i = 0; i < a.n; ++i) {
      for (std::int64_t j = 0; j < a.k; ++j) {
        const Vec3 p = body::sample_point(a.matrices + 9 * i, a.frequencies + 3 * j);
        const body::GridSample s = body::grid_sample(p, radius_squared, size);
        if (!s.inside) {
          continue;
        }
        const ComplexF value = a.slices[i * a.k + j];
        const float weight = a.weights[i * a.k + j];
        const body::RowWeights w = body::row_weights(s.fy, s.fz);
        if (slabs.owner(s.z0) == part) {
          deposit_plane(a, s, s.z0, w.w00, w.w01, value, weight);
        }
        if (slabs.owner(s.z1) == part) {
          deposit_plane(a, s, s.z1, w.w10, w.w11, value, weight);
        }
      }
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
