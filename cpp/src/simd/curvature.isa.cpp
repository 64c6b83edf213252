// Value, gradient and curvature of the likelihood of single images (Eq. 4): coordinates in vectors, loads of two
// neighbours per row, then the sums of a batch in vectors again.
#include "tiltwise/body/curvature.hpp"  // for add_curvature

#include "simd/levels.hpp"

#include "simd/samples.hpp"            // for Samples, find_samples
#include "simd/scratch.hpp"            // for Scratch
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for VecF, Vec4F
#include "tiltwise/body/phase.hpp"     // for unit_phase

namespace tiltwise::TW_ISA {

namespace {

using simd::Vec4F;
using simd::VecF;

constexpr std::int64_t images_per_task = 4;

/// Value and gradient of a batch, as arrays: re and im of V, dV/dx, dV/dy, dV/dz; zero for samples not inside.
struct Values {
  float parts[8][simd::samples_per_batch];
};

TW_HD void interpolate_batch(const ComplexF* volume, std::int64_t half, const simd::Samples& s, std::int64_t count,
                             Values& out) {
  for (std::int64_t j = 0; j < count; ++j) {
    if (s.sign[j] == 0.0f) {
      for (auto& part : out.parts) {
        part[j] = 0.0f;
      }
      continue;
    }
    const ComplexF* column = volume + s.x[j];
    const Vec4F c00 = simd::load_as<Vec4F>(column + s.row00[j] * half);
    const Vec4F c01 = simd::load_as<Vec4F>(column + s.row01[j] * half);
    const Vec4F c10 = simd::load_as<Vec4F>(column + s.row10[j] * half);
    const Vec4F c11 = simd::load_as<Vec4F>(column + s.row11[j] * half);
    // w00 = gz gy, w01 = gz fy, w10 = fz gy, w11 = fz fy
    const float fy = s.w01[j] + s.w11[j], fz = s.w10[j] + s.w11[j];
    const Vec4F value = s.w00[j] * c00 + s.w01[j] * c01 + (s.w10[j] * c10 + s.w11[j] * c11);
    const Vec4F dz = (1.0f - fy) * (c10 - c00) + fy * (c11 - c01);
    const Vec4F dy = (1.0f - fz) * (c01 - c00) + fz * (c11 - c10);
    const float fx = s.fx[j], gx = 1.0f - fx, sign = s.sign[j];
    out.parts[0][j] = gx * value[0] + fx * value[2];
    out.parts[1][j] = sign * (gx * value[1] + fx * value[3]);
    out.parts[2][j] = sign * (value[2] - value[0]);
    out.parts[3][j] = value[3] - value[1];
    out.parts[4][j] = sign * (gx * dy[0] + fx * dy[2]);
    out.parts[5][j] = gx * dy[1] + fx * dy[3];
    out.parts[6][j] = sign * (gx * dz[0] + fx * dz[2]);
    out.parts[7][j] = gx * dz[1] + fx * dz[3];
  }
  // whole vectors are summed: fill up with zeros
  for (std::int64_t j = count; j < (count + simd::float_lanes - 1) / simd::float_lanes * simd::float_lanes; ++j) {
    for (auto& part : out.parts) {
      part[j] = 0.0f;
    }
  }
}

/// `count` interleaved (re, im), moved by a slope, to two arrays, and the powers; padded with zeros to whole vectors.
/// Samples that are not inside do not count, whatever the image holds.
template <int axes>
TW_HD void move_image(const ComplexF* image, const float* power, const float* kx, const float* ky, const float* kz,
                      const float* slope, const simd::Samples& samples, std::int64_t count, float* re, float* im,
                      float* used_power) {
  for (std::int64_t j = 0; j < count; ++j) {
    const ComplexF phase = body::unit_phase(body::phase_slope<axes>(kx[j], ky[j], kz[j], slope));
    const ComplexF moved = multiply(image[j], phase);
    const bool inside = samples.sign[j] != 0.0f;
    re[j] = inside ? moved.re : 0.0f;
    im[j] = inside ? moved.im : 0.0f;
    used_power[j] = inside ? power[j] : 0.0f;
  }
  for (std::int64_t j = count; j < (count + simd::float_lanes - 1) / simd::float_lanes * simd::float_lanes; ++j) {
    re[j] = im[j] = used_power[j] = 0.0f;
  }
}

/// Adds a batch to the sums of one image.
template <int axes>
TW_HD void add_batch(const Values& v, const float* matrix, const float* kx, const float* ky, const float* kz,
                     const float* re, const float* im, const float* power, std::int64_t count, double* sums) {
  VecF partial[curvature_terms<axes>] = {};
  for (std::int64_t j = 0; j < count; j += simd::float_lanes) {
    const VecF dx[2] = {simd::load(v.parts[2] + j), simd::load(v.parts[3] + j)};
    const VecF dy[2] = {simd::load(v.parts[4] + j), simd::load(v.parts[5] + j)};
    const VecF dz[2] = {simd::load(v.parts[6] + j), simd::load(v.parts[7] + j)};
    VecF gre[3], gim[3];
#pragma GCC unroll 3
    for (int c = 0; c < 3; ++c) {
      gre[c] = matrix[c] * dx[0] + matrix[3 + c] * dy[0] + matrix[6 + c] * dz[0];
      gim[c] = matrix[c] * dx[1] + matrix[3 + c] * dy[1] + matrix[6 + c] * dz[1];
    }
    body::add_curvature<axes, VecF>(partial, simd::load(v.parts[0] + j), simd::load(v.parts[1] + j), gre, gim,
                                    simd::load(kx + j), simd::load(ky + j), simd::load(kz + j), simd::load(re + j),
                                    simd::load(im + j), simd::load(power + j));
  }
  for (int t = 0; t < curvature_terms<axes>; ++t) {
    sums[t] += static_cast<double>(simd::sum(partial[t]));
  }
}

template <int axes>
int curvature_of(const CurvatureArgs& a, ErrorText* error) {
  constexpr int terms = curvature_terms<axes>;
  const auto size = static_cast<std::int32_t>(a.size);
  const std::int64_t half = a.size / 2 + 1;
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  // frequencies as arrays that may be read by whole vectors
  const std::int64_t padded = a.k + simd::float_lanes;
  const simd::Scratch scratch(3 * padded * static_cast<std::int64_t>(sizeof(float)), 1);
  if (!scratch.usable("curvature", error)) {
    return status_out_of_memory;
  }
  auto* kx = static_cast<float*>(scratch.of_thread(0));
  float* ky = kx + padded;
  float* kz = ky + padded;
  simd::split_frequencies(a.frequencies, a.k, kx, ky, kz);
  for (std::int64_t j = a.k; j < padded; ++j) {
    kx[j] = ky[j] = kz[j] = 0.0f;
  }
  parallel_for((a.n + images_per_task - 1) / images_per_task, a.threads, [&](std::int64_t task, int) {
    const std::int64_t first = task * images_per_task;
    const std::int64_t last = first + images_per_task < a.n ? first + images_per_task : a.n;
    simd::Samples samples;
    Values values;
    float re[simd::samples_per_batch], im[simd::samples_per_batch], power[simd::samples_per_batch];
    for (std::int64_t i = first; i < last; ++i) {
      double sums[terms] = {};
      const std::int64_t row = a.rows[i] * a.stride;
      for (std::int64_t j = 0; j < a.k; j += simd::samples_per_batch) {
        const std::int64_t count = a.k - j < simd::samples_per_batch ? a.k - j : simd::samples_per_batch;
        simd::find_samples(a.matrices + 9 * i, kx + j, ky + j, kz + j, count, radius_squared, size, samples);
        interpolate_batch(a.volume, half, samples, count, values);
        move_image<axes>(a.images + row + j, a.powers + row + j, kx + j, ky + j, kz + j, a.slopes + axes * i, samples,
                         count, re, im, power);
        add_batch<axes>(values, a.matrices + 9 * i, kx + j, ky + j, kz + j, re, im, power, count, sums);
      }
      for (int t = 0; t < terms; ++t) {
        a.out[i * terms + t] = sums[t];
      }
    }
  });
  return status_ok;
}

}  // namespace

int curvature(const CurvatureArgs* args, ErrorText* error) {
  return args->axes == 3 ? curvature_of<3>(*args, error) : curvature_of<2>(*args, error);
}

}  // namespace tiltwise::TW_ISA
