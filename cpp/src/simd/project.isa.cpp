// Slices of a volume (Eqs. 3, 6): coordinates in vectors, then four loads of two neighbours per sample.
#include "simd/levels.hpp"

#include "simd/samples.hpp"            // for Samples, find_samples
#include "simd/scratch.hpp"            // for Scratch
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for Vec4F

namespace tiltwise::TW_ISA {

namespace {

using simd::Vec4F;

constexpr std::int64_t slices_per_task = 64;

/// (re, im) of column x and of column x + 1.
TW_HD Vec4F load_pair(const ComplexF* volume, std::int64_t half, std::int32_t row, std::int32_t x) {
  return simd::load_as<Vec4F>(volume + row * half + x);
}

/// body::interpolate with both columns in one vector.
TW_HD void interpolate_batch(const ComplexF* volume, std::int64_t half, const simd::Samples& s, std::int64_t count,
                             ComplexF* out) {
  for (std::int64_t j = 0; j < count; ++j) {
    if (s.sign[j] == 0.0f) {
      out[j] = {0.0f, 0.0f};
      continue;
    }
    Vec4F pair = s.w00[j] * load_pair(volume, half, s.row00[j], s.x[j]);
    pair += s.w01[j] * load_pair(volume, half, s.row01[j], s.x[j]);
    pair += s.w10[j] * load_pair(volume, half, s.row10[j], s.x[j]);
    pair += s.w11[j] * load_pair(volume, half, s.row11[j], s.x[j]);
    const float fx = s.fx[j], gx = 1.0f - fx;
    out[j] = {gx * pair[0] + fx * pair[2], s.sign[j] * (gx * pair[1] + fx * pair[3])};
  }
}

}  // namespace

int project(const ProjectArgs* args, ErrorText* error) {
  const ProjectArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const std::int64_t half = a.size / 2 + 1;
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  const simd::Scratch scratch(3 * a.k * static_cast<std::int64_t>(sizeof(float)), 1);
  if (!scratch.usable("project", error)) {
    return status_out_of_memory;
  }
  auto* kx = static_cast<float*>(scratch.of_thread(0));
  float* ky = kx + a.k;
  float* kz = ky + a.k;
  simd::split_frequencies(a.frequencies, a.k, kx, ky, kz);
  // Batches of frequencies outside, slices inside: in shell order a batch of all slices stays in a thin
  // spherical shell of the volume, which fits the cache.
  const std::int64_t tasks_per_batch = (a.n + slices_per_task - 1) / slices_per_task;
  const std::int64_t batches = (a.k + simd::samples_per_batch - 1) / simd::samples_per_batch;
  parallel_for(batches * tasks_per_batch, a.threads, [&](std::int64_t task, int) {
    const std::int64_t j = task / tasks_per_batch * simd::samples_per_batch;
    const std::int64_t count = a.k - j < simd::samples_per_batch ? a.k - j : simd::samples_per_batch;
    const std::int64_t first = task % tasks_per_batch * slices_per_task;
    const std::int64_t last = first + slices_per_task < a.n ? first + slices_per_task : a.n;
    simd::Samples samples;
    for (std::int64_t i = first; i < last; ++i) {
      simd::find_samples(a.matrices + 9 * i, kx + j, ky + j, kz + j, count, radius_squared, size, samples);
      interpolate_batch(a.volume, half, samples, count, a.out + i * a.k + j);
    }
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
