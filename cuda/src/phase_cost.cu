// Cost of phase errors with gradient and second derivatives (Eqs. 27, 28): one block per item and term.
//
// A thread adds every 128th pixel in a fixed order, then the block adds its threads: the same bytes in every run.
#include "tiltwise/body/phasefit.hpp"  // for phase_cost, phase_terms

#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads)
    phase_cost_kernel(const double* __restrict__ matrices, const double* __restrict__ vectors,
                      const double* __restrict__ basis, const double* __restrict__ parameters,
                      const int* __restrict__ rows, double* __restrict__ out, long long n, long long k, int n_basis,
                      int terms) {
  // which derivative: none, by one parameter, or by two
  const int term = static_cast<int>(blockIdx.x);
  int a = -1, b = -1;
  if (term > n_basis) {
    a = 0;
    for (int rest = term - 1 - n_basis; rest >= n_basis - a; ++a) {
      rest -= n_basis - a;
    }
    b = term - 1 - n_basis;
    for (int c = 0; c < a; ++c) {
      b -= n_basis - c;
    }
    b += a;
  } else if (term > 0) {
    a = term - 1;
  }
  for (long long i = blockIdx.y; i < n; i += gridDim.y) {
    const double* matrix = matrices + rows[i] * 3 * k;
    const double* vector = vectors + rows[i] * 2 * k;
    double linear = 0.0, quadratic = 0.0;
    for (long long j = threadIdx.x; j < k; j += threads) {
      double d = 0.0;
      for (int p = 0; p < n_basis; ++p) {
        d += parameters[i * n_basis + p] * basis[p * k + j];
      }
      const body::PhaseCost cost =
          body::phase_cost(d, matrix[j], matrix[k + j], matrix[2 * k + j], vector[j], vector[k + j]);
      const double factor = (a >= 0 ? basis[a * k + j] : 1.0) * (b >= 0 ? basis[b * k + j] : 1.0);
      linear += factor * (b >= 0 ? cost.linear[2] : a >= 0 ? cost.linear[1] : cost.linear[0]);
      quadratic += factor * (b >= 0 ? cost.quadratic[2] : a >= 0 ? cost.quadratic[1] : cost.quadratic[0]);
    }
    linear = block_sum<threads>(linear);
    quadratic = block_sum<threads>(quadratic);
    if (threadIdx.x == 0) {
      out[2 * i * terms + term] = linear;
      out[(2 * i + 1) * terms + term] = quadratic;
    }
  }
}

}  // namespace

int phase_cost(const PhaseCostArgs* args, ErrorText* error) {
  return guarded("phase_cost", error, [args] {
    const PhaseCostArgs& a = *args;
    if (a.n == 0) {
      return;
    }
    const std::int64_t terms = body::phase_terms(a.p);
    const Stream stream;
    const Buffer<double> matrices(a.matrices, 3 * a.m * a.k, stream);
    const Buffer<double> vectors(a.vectors, 2 * a.m * a.k, stream);
    const Buffer<double> basis(a.basis, a.p * a.k, stream);
    const Buffer<double> parameters(a.parameters, a.n * a.p, stream);
    const Buffer<int> rows(a.rows, a.n, stream);
    Buffer<double> out(2 * a.n * terms);
    TW_LAUNCH(phase_cost_kernel, dim3(blocks_for(terms, 1), rows_for(a.n)), dim3(threads), 0, stream, matrices.get(),
              vectors.get(), basis.get(), parameters.get(), rows.get(), out.get(), a.n, a.k, static_cast<int>(a.p),
              static_cast<int>(terms));
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
