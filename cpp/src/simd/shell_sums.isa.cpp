// Sums of products over Fourier shells (Eqs. 12, 13, FSC): runs of components of one shell in vectors.
#include "simd/levels.hpp"

#include "simd/scratch.hpp"            // for Scratch
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for VecD, load_as_double
#include "tiltwise/body/maximise.hpp"  // for real_product

namespace tiltwise::TW_ISA {

namespace {

using simd::VecD;

/// Components [first, last) that belong to one shell.  Arrays in shell order have one run per shell.
struct Run {
  std::int64_t first, last;
  std::int32_t shell;
};

std::int64_t find_runs(const ShellSumsArgs& a, Run* runs) {
  std::int64_t n_runs = 0;
  for (std::int64_t k = 0; k < a.k;) {
    const std::int32_t shell = a.shells[k];
    const std::int64_t first = k;
    while (k < a.k && a.shells[k] == shell) {
      ++k;
    }
    if (shell >= 0 && shell < a.n_shells) {
      runs[n_runs++] = {first, k, shell};
    }
  }
  return n_runs;
}

/// body::real_product over a run; `weights` interleaved twice like the parts of a complex number.
TW_HD double sum_run(const ComplexF* a, const ComplexF* b, const float* weights, const Run& run) {
  const auto* left = reinterpret_cast<const float*>(a);
  const auto* right = reinterpret_cast<const float*>(b);
  VecD sums = {};
  std::int64_t i = 2 * run.first;
  for (; i + simd::double_lanes <= 2 * run.last; i += simd::double_lanes) {
    VecD value = simd::load_as_double(left + i);
    if (weights != nullptr) {
      value *= simd::load_as_double(weights + i);
    }
    sums = simd::mul_add(value, simd::load_as_double(right + i), sums);
  }
  double total = simd::sum(sums);
  for (std::int64_t k = i / 2; k < run.last; ++k) {
    const double product = body::real_product(a[k], b[k]);
    total += weights != nullptr ? static_cast<double>(weights[2 * k]) * product : product;
  }
  return total;
}

}  // namespace

int shell_sums(const ShellSumsArgs* args, ErrorText* error) {
  const ShellSumsArgs& a = *args;
  const std::int64_t run_bytes = a.k * static_cast<std::int64_t>(sizeof(Run));
  const std::int64_t weight_bytes = a.weights != nullptr ? 2 * a.k * static_cast<std::int64_t>(sizeof(float)) : 0;
  const simd::Scratch scratch(run_bytes + weight_bytes, 1);
  if (!scratch.usable("shell_sums", error)) {
    return status_out_of_memory;
  }
  auto* bytes = static_cast<unsigned char*>(scratch.of_thread(0));
  auto* runs = reinterpret_cast<Run*>(bytes);
  const std::int64_t n_runs = find_runs(a, runs);
  float* weights = nullptr;
  if (a.weights != nullptr) {
    weights = reinterpret_cast<float*>(bytes + run_bytes);
    for (std::int64_t k = 0; k < a.k; ++k) {
      weights[2 * k] = weights[2 * k + 1] = a.weights[k];
    }
  }
  parallel_for(a.n, a.threads, [&](std::int64_t i, int) {
    double* out = a.out + i * a.n_shells;
    for (std::int64_t s = 0; s < a.n_shells; ++s) {
      out[s] = 0.0;
    }
    for (std::int64_t r = 0; r < n_runs; ++r) {
      out[runs[r].shell] += sum_run(a.a + i * a.k, a.b + i * a.k, weights, runs[r]);
    }
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
