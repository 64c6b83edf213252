// Condensed evidence about CTF phases (Eqs. 23-26).
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/phasefit.hpp"  // for add_condensed, ctf_wave
#include "tiltwise/body/slice.hpp"     // for grid_sample, interpolate

namespace tiltwise::host {

int condense(const CondenseArgs* args, ErrorText*) {
  const CondenseArgs& a = *args;
  const auto size = static_cast<std::int32_t>(a.size);
  const auto radius_squared = static_cast<float>(a.radius * a.radius);
  // a pixel belongs to one thread, which adds its images in their order
  parallel_for(a.k, a.threads, [&](std::int64_t j, int) {
    for (std::int64_t g = 0; g < a.groups; ++g) {
      double* sums = a.out + g * condensed_terms * a.k + j;
      for (std::int64_t i = a.starts[g]; i < a.starts[g + 1]; ++i) {
        const Vec3 p = body::sample_point(a.matrices + 9 * i, a.frequencies + 3 * j);
        const body::GridSample s = body::grid_sample(p, radius_squared, size);
        const ComplexF v = s.inside ? body::interpolate(a.volume, s, a.size) : ComplexF{0.0f, 0.0f};
        body::add_condensed(sums, a.k, v, a.images[i * a.k + j],
                            body::ctf_wave(a.turns[g * a.k + j], a.slopes[j], a.depths[i]));
      }
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
