// Value, gradient and curvature of the likelihood of single images (Eq. 4).
#include "tiltwise/body/curvature.hpp"  // for interpolate_with_gradient, add_curvature

#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/phase.hpp"     // for unit_phase

namespace tiltwise::host {

int curvature(const CurvatureArgs* args, ErrorText*) {
  const CurvatureArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    const float* matrix = a.matrices + 9 * i;
    const std::int64_t row = a.rows[i] * a.stride;
    double sums[curvature_terms] = {};
    for (std::int64_t j = 0; j < a.k; ++j) {
      const float* k = a.frequencies + 3 * j;
      const body::GridSample s = body::grid_sample(body::sample_point(matrix, k), radius_squared, size);
      if (!s.inside) {
        continue;
      }
      const body::ValueAndGradient v = body::interpolate_with_gradient(a.volume, s, a.size);
      double gre[3], gim[3];
      for (int c = 0; c < 3; ++c) {  // g = M^T grad V
        gre[c] = static_cast<double>(matrix[c]) * v.dx.re + static_cast<double>(matrix[3 + c]) * v.dy.re +
                 static_cast<double>(matrix[6 + c]) * v.dz.re;
        gim[c] = static_cast<double>(matrix[c]) * v.dx.im + static_cast<double>(matrix[3 + c]) * v.dy.im +
                 static_cast<double>(matrix[6 + c]) * v.dz.im;
      }
      const ComplexF y =
          multiply(a.images[row + j], body::unit_phase(mul_add(k[0], a.slopes[2 * i], k[1] * a.slopes[2 * i + 1])));
      body::add_curvature<double>(sums, v.value.re, v.value.im, gre, gim, k[0], k[1], k[2], y.re, y.im,
                                  a.powers[row + j]);
    }
    for (int t = 0; t < curvature_terms; ++t) {
      a.out[i * curvature_terms + t] = sums[t];
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
