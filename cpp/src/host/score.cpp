// Cross and quadratic terms of the expanded likelihood (Eq. 4) and posterior-weighted sums (Eq. 11).
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/choice.hpp"    // for chosen
#include "tiltwise/body/maximise.hpp"  // for add_weighted
#include "tiltwise/body/residual.hpp"  // for add_cross, add_quadratic, shifted_image

#include <limits>  // for numeric_limits

namespace tiltwise::host {

namespace {

/// Floats are summed over this many components, the partial sums in double: the rounding error then does
/// not grow with the length of the sum.
constexpr std::int64_t components_per_sum = 256;

}  // namespace

int score(const ScoreArgs* args, ErrorText*) {
  const ScoreArgs& a = *args;
  parallel_for(a.n_rotations, a.threads, [&](std::int64_t r, int) {
    const ComplexF* slice = a.slices + body::chosen(a.rows, r) * a.k;
    for (std::int64_t t = 0; t < a.n_shifts; ++t) {
      if (a.wanted != nullptr && !a.wanted[r * a.n_shifts + t]) {
        a.cross[r * a.n_shifts + t] = -std::numeric_limits<float>::infinity();
        continue;
      }
      const ComplexF* phase = a.phases + body::chosen(a.columns, t) * a.k;
      double cross = 0.0;
      for (std::int64_t first = 0; first < a.k; first += components_per_sum) {
        const std::int64_t last = first + components_per_sum < a.k ? first + components_per_sum : a.k;
        float sum = 0.0f;
        for (std::int64_t k = first; k < last; ++k) {
          sum = body::add_cross(sum, slice[k], body::shifted_image(a.image[k], phase[k]));
        }
        cross += static_cast<double>(sum);
      }
      a.cross[r * a.n_shifts + t] = static_cast<float>(cross);
    }
    double quadratic = 0.0;
    for (std::int64_t first = 0; first < a.k; first += components_per_sum) {
      const std::int64_t last = first + components_per_sum < a.k ? first + components_per_sum : a.k;
      float sum = 0.0f;
      for (std::int64_t k = first; k < last; ++k) {
        sum = body::add_quadratic(sum, slice[k], a.power[k]);
      }
      quadratic += static_cast<double>(sum);
    }
    a.quadratic[r] = static_cast<float>(quadratic);
  });
  return status_ok;
}

int backproject(const BackprojectArgs* args, ErrorText*) {
  const BackprojectArgs& a = *args;
  parallel_for(a.n_rotations, a.threads, [&](std::int64_t r, int) {
    const float* weights = a.weights + r * a.n_shifts;
    ComplexF* sums = a.sums + r * a.k;
    for (std::int64_t k = 0; k < a.k; ++k) {
      sums[k] = {0.0f, 0.0f};
    }
    double total = 0.0;
    for (std::int64_t t = 0; t < a.n_shifts; ++t) {
      const float weight = weights[t];
      total += static_cast<double>(weight);
      if (weight == 0.0f) {
        continue;  // most poses: outside the significant set
      }
      const ComplexF* phase = a.phases + t * a.k;
      for (std::int64_t k = 0; k < a.k; ++k) {
        sums[k] = body::add_weighted(sums[k], weight, body::shifted_image(a.image[k], phase[k]));
      }
    }
    for (std::int64_t k = 0; k < a.k; ++k) {
      a.totals[r * a.k + k] = static_cast<float>(total * static_cast<double>(a.power[k]));
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
