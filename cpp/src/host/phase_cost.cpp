// Cost of phase errors with gradient and second derivatives (Eqs. 27, 28).  Double precision: bound by sines.
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/phasefit.hpp"  // for phase_cost, phase_terms

namespace tiltwise::host {

int phase_cost(const PhaseCostArgs* args, ErrorText*) {
  const PhaseCostArgs& a = *args;
  const std::int64_t terms = body::phase_terms(a.p);
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    const double* matrix = a.matrices + a.rows[i] * 3 * a.k;
    const double* vector = a.vectors + a.rows[i] * 2 * a.k;
    const double* parameters = a.parameters + i * a.p;
    double* linear = a.out + 2 * i * terms;
    double* quadratic = linear + terms;
    for (std::int64_t t = 0; t < 2 * terms; ++t) {
      linear[t] = 0.0;
    }
    double phi[max_phase_parameters];
    for (std::int64_t j = 0; j < a.k; ++j) {
      double d = 0.0;
      for (std::int64_t p = 0; p < a.p; ++p) {
        phi[p] = a.basis[p * a.k + j];
        d += parameters[p] * phi[p];
      }
      const body::PhaseCost cost =
          body::phase_cost(d, matrix[j], matrix[a.k + j], matrix[2 * a.k + j], vector[j], vector[a.k + j]);
      linear[0] += cost.linear[0];
      quadratic[0] += cost.quadratic[0];
      std::int64_t next = 1 + a.p;
      for (std::int64_t p = 0; p < a.p; ++p) {
        linear[1 + p] += phi[p] * cost.linear[1];
        quadratic[1 + p] += phi[p] * cost.quadratic[1];
        const double second_linear = phi[p] * cost.linear[2], second_quadratic = phi[p] * cost.quadratic[2];
        for (std::int64_t q = p; q < a.p; ++q, ++next) {
          linear[next] += phi[q] * second_linear;
          quadratic[next] += phi[q] * second_quadratic;
        }
      }
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
