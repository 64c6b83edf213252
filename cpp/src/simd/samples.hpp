// Grid samples of a run of frequencies, as arrays that the compiler fills with vector instructions.
#pragma once

#include "tiltwise/body/slice.hpp"  // for grid_sample, row_weights

#include <cstdint>  // for int32_t

namespace tiltwise::simd {

constexpr std::int64_t samples_per_batch = 128;

/// What `project` and `insert` need of a batch of samples.  Rows are z * size + y: they fit 32 bits for
/// every volume that fits memory, unlike voxel indices.
struct Samples {
  std::int32_t row00[samples_per_batch], row01[samples_per_batch];
  std::int32_t row10[samples_per_batch], row11[samples_per_batch];
  std::int32_t x[samples_per_batch], z0[samples_per_batch], z1[samples_per_batch];
  float w00[samples_per_batch], w01[samples_per_batch], w10[samples_per_batch], w11[samples_per_batch];
  float fx[samples_per_batch];
  float sign[samples_per_batch];  ///< of the imaginary part: -1 after the Friedel fold; 0 for samples not inside
};

/// Fills `count` samples of one matrix; frequencies as three arrays.
TW_HD void find_samples(const float* matrix, const float* kx, const float* ky, const float* kz, std::int64_t count,
                        float radius_squared, std::int32_t size, Samples& out) {
  for (std::int64_t j = 0; j < count; ++j) {
    const Vec3 p = transform(matrix, {kx[j], ky[j], kz[j]});
    const body::GridSample s = body::grid_sample(p, radius_squared, size);
    const body::RowWeights w = body::row_weights(s.fy, s.fz);
    out.row00[j] = s.z0 * size + s.y0;
    out.row01[j] = s.z0 * size + s.y1;
    out.row10[j] = s.z1 * size + s.y0;
    out.row11[j] = s.z1 * size + s.y1;
    out.x[j] = s.x;
    out.z0[j] = s.z0;
    out.z1[j] = s.z1;
    out.w00[j] = w.w00;
    out.w01[j] = w.w01;
    out.w10[j] = w.w10;
    out.w11[j] = w.w11;
    out.fx[j] = s.fx;
    out.sign[j] = s.inside ? (s.fold ? -1.0f : 1.0f) : 0.0f;
  }
}

/// (k, 3) to three arrays.
TW_HD void split_frequencies(const float* frequencies, std::int64_t k, float* kx, float* ky, float* kz) {
  for (std::int64_t j = 0; j < k; ++j) {
    kx[j] = frequencies[3 * j];
    ky[j] = frequencies[3 * j + 1];
    kz[j] = frequencies[3 * j + 2];
  }
}

}  // namespace tiltwise::simd
