// Condensed evidence about CTF phases (Eqs. 23-26): a batch of pixels of all images at a time, so that sums stay in
// the cache and slices in a thin shell of the volume.
#include "simd/levels.hpp"

#include "simd/samples.hpp"            // for Samples, find_samples
#include "simd/scratch.hpp"            // for Scratch
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for Vec4F
#include "tiltwise/body/phasefit.hpp"  // for add_condensed, ctf_wave

namespace tiltwise::TW_ISA {

namespace {

using simd::Vec4F;

/// Complex numbers of a batch as two arrays.
struct Slice {
  float re[simd::samples_per_batch], im[simd::samples_per_batch];
};

/// Sums of a batch: rows at a distance that the compiler knows, so that it need not fear that they overlap.
struct Sums {
  double term[condensed_terms][simd::samples_per_batch];
};

TW_HD void interpolate_batch(const ComplexF* volume, std::int64_t half, const simd::Samples& s, std::int64_t count,
                             Slice& out) {
  for (std::int64_t j = 0; j < count; ++j) {
    if (s.sign[j] == 0.0f) {
      out.re[j] = out.im[j] = 0.0f;
      continue;
    }
    const ComplexF* column = volume + s.x[j];
    Vec4F pair = s.w00[j] * simd::load_as<Vec4F>(column + s.row00[j] * half);
    pair += s.w01[j] * simd::load_as<Vec4F>(column + s.row01[j] * half);
    pair += s.w10[j] * simd::load_as<Vec4F>(column + s.row10[j] * half);
    pair += s.w11[j] * simd::load_as<Vec4F>(column + s.row11[j] * half);
    const float fx = s.fx[j], gx = 1.0f - fx;
    out.re[j] = gx * pair[0] + fx * pair[2];
    out.im[j] = s.sign[j] * (gx * pair[1] + fx * pair[3]);
  }
}

}  // namespace

int condense(const CondenseArgs* args, ErrorText* error) {
  const CondenseArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const std::int64_t half = a.size / 2 + 1;
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  const simd::Scratch scratch(3 * a.k * static_cast<std::int64_t>(sizeof(float)), 1);
  if (!scratch.usable("condense", error)) {
    return status_out_of_memory;
  }
  auto* kx = static_cast<float*>(scratch.of_thread(0));
  float* ky = kx + a.k;
  float* kz = ky + a.k;
  simd::split_frequencies(a.frequencies, a.k, kx, ky, kz);
  const std::int64_t batches = (a.k + simd::samples_per_batch - 1) / simd::samples_per_batch;
  // a batch belongs to one thread, which adds its images in their order
  parallel_for(batches, a.threads, [&](std::int64_t batch, int) {
    const std::int64_t first = batch * simd::samples_per_batch;
    const std::int64_t count = a.k - first < simd::samples_per_batch ? a.k - first : simd::samples_per_batch;
    simd::Samples samples;
    Slice slice, wave;
    Sums sums;
    for (std::int64_t g = 0; g < a.groups; ++g) {
      double* out = a.out + g * condensed_terms * a.k + first;
      const float* turns = a.turns + g * a.k + first;
      const float* slopes = a.slopes + first;
      for (std::int64_t term = 0; term < condensed_terms; ++term) {
        for (std::int64_t j = 0; j < count; ++j) {
          sums.term[term][j] = out[term * a.k + j];
        }
      }
      for (std::int64_t i = a.starts[g]; i < a.starts[g + 1]; ++i) {
        simd::find_samples(a.matrices + 9 * i, kx + first, ky + first, kz + first, count, radius_squared, size,
                           samples);
        interpolate_batch(a.volume, half, samples, count, slice);
        const ComplexF* image = a.images + i * a.k + first;
        const float depth = a.depths[i];
        for (std::int64_t j = 0; j < count; ++j) {
          const ComplexF w = body::ctf_wave(turns[j], slopes[j], depth);
          wave.re[j] = w.re;
          wave.im[j] = w.im;
        }
        for (std::int64_t j = 0; j < count; ++j) {
          body::add_condensed(&sums.term[0][j], simd::samples_per_batch, {slice.re[j], slice.im[j]}, image[j],
                              {wave.re[j], wave.im[j]});
        }
      }
      for (std::int64_t term = 0; term < condensed_terms; ++term) {
        for (std::int64_t j = 0; j < count; ++j) {
          out[term * a.k + j] = sums.term[term][j];
        }
      }
    }
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
