// Sums of products over Fourier shells (Eqs. 12, 13, FSC).
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/maximise.hpp"  // for real_product

namespace tiltwise::host {

int shell_sums(const ShellSumsArgs* args, ErrorText*) {
  const ShellSumsArgs& a = *args;
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    double* out = a.out + i * a.n_shells;
    for (std::int64_t s = 0; s < a.n_shells; ++s) {
      out[s] = 0.0;
    }
    for (std::int64_t k = 0; k < a.k; ++k) {
      const std::int32_t shell = a.shells[k];
      if (shell < 0 || shell >= a.n_shells) {
        continue;
      }
      const double product = body::real_product(a.a[i * a.k + k], a.b[i * a.k + k]);
      out[shell] += a.weights != nullptr ? static_cast<double>(a.weights[k]) * product : product;
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
