// Transpose of project (Eqs. 8-11).  Every part of the work owns some planes of the accumulators and adds
// all samples that touch them, in order.
#include "simd/levels.hpp"

#include "simd/samples.hpp"            // for Samples, find_samples
#include "simd/scratch.hpp"            // for Scratch
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for Vec4D, Vec2D
#include "tiltwise/base/slabs.hpp"     // for Slabs

namespace tiltwise::TW_ISA {

namespace {

using simd::Vec2D;
using simd::Vec4D;

/// Adds to columns x and x + 1 of one row: body::deposit for both at once.
TW_HD void deposit_row(const InsertArgs& a, std::int64_t voxel, double row_weight, Vec4D value, Vec2D weight) {
  ComplexD* data = a.data + voxel;
  double* sum = a.weight + voxel;
  simd::store_as(data, simd::load_as<Vec4D>(data) + row_weight * value);
  simd::store_as(sum, simd::load_as<Vec2D>(sum) + row_weight * weight);
}

TW_HD void deposit_batch(const InsertArgs& a, const simd::Samples& s, std::int64_t first, std::int64_t count,
                         const Slabs& slabs, std::int32_t part) {
  const std::int64_t half = a.size / 2 + 1;
  for (std::int64_t j = 0; j < count; ++j) {
    if (s.sign[j] == 0.0f) {
      continue;
    }
    const bool lower = slabs.owner(s.z0[j]) == part;
    const bool upper = slabs.owner(s.z1[j]) == part;
    if (!lower && !upper) {
      continue;
    }
    const ComplexF sample = a.slices[first + j];
    const double fx = s.fx[j], gx = 1.0 - fx, weight = a.weights[first + j];
    const double re = sample.re, im = static_cast<double>(s.sign[j]) * sample.im;
    const Vec4D value = {gx * re, gx * im, fx * re, fx * im};
    const Vec2D weights = {gx * weight, fx * weight};
    if (lower) {
      deposit_row(a, s.row00[j] * half + s.x[j], s.w00[j], value, weights);
      deposit_row(a, s.row01[j] * half + s.x[j], s.w01[j], value, weights);
    }
    if (upper) {
      deposit_row(a, s.row10[j] * half + s.x[j], s.w10[j], value, weights);
      deposit_row(a, s.row11[j] * half + s.x[j], s.w11[j], value, weights);
    }
  }
}

}  // namespace

int insert(const InsertArgs* args, ErrorText* error) {
  const InsertArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  const simd::Scratch scratch(3 * a.k * static_cast<std::int64_t>(sizeof(float)), 1);
  if (!scratch.usable("insert", error)) {
    return status_out_of_memory;
  }
  auto* kx = static_cast<float*>(scratch.of_thread(0));
  float* ky = kx + a.k;
  float* kz = ky + a.k;
  simd::split_frequencies(a.frequencies, a.k, kx, ky, kz);
  const Slabs slabs = {a.threads > 1 ? a.threads : 1};
  parallel_for(slabs.parts, a.threads, [&](std::int64_t part, int) {
    simd::Samples samples;
    // Batches of frequencies outside, slices inside: in shell order a batch of all slices stays in a thin
    // spherical shell of the accumulators, which fits the cache.
    for (std::int64_t j = 0; j < a.k; j += simd::samples_per_batch) {
      const std::int64_t count = a.k - j < simd::samples_per_batch ? a.k - j : simd::samples_per_batch;
      for (std::int64_t i = 0; i < a.n; ++i) {
        simd::find_samples(a.matrices + 9 * i, kx + j, ky + j, kz + j, count, radius_squared, size, samples);
        deposit_batch(a, samples, i * a.k + j, count, slabs, static_cast<std::int32_t>(part));
      }
    }
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
