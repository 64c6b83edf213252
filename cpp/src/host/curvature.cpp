// Value, gradient and curvature of the likelihood of single images (Eq. 4).
#include "tiltwise/body/curvature.hpp"  // for interpolate_with_gradient, add_curvature

#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/phase.hpp"     // for unit_phase

namespace tiltwise::host {

namespace {

template <int axes>
void curvature_of(const CurvatureArgs& a) {
  constexpr int terms = curvature_terms<axes>;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    const float* matrix = a.matrices + 9 * i;
    const std::int64_t row = a.rows[i] * a.stride;
    double sums[terms] = {};
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
      const float slope = body::phase_slope<axes>(k[0], k[1], k[2], a.slopes + axes * i);
      const ComplexF y = multiply(a.images[row + j], body::unit_phase(slope));
      body::add_curvature<axes, double>(sums, v.value.re, v.value.im, gre, gim, k[0], k[1], k[2], y.re, y.im,
                                        a.powers[row + j]);
    }
    for (int t = 0; t < terms; ++t) {
      a.out[i * terms + t] = sums[t];
    }
  });
}

}  // namespace

int curvature(const CurvatureArgs* args, ErrorText*) {
  args->axes == 3 ? curvature_of<3>(*args) : curvature_of<2>(*args);
  return status_ok;
}

}  // namespace tiltwise::host
