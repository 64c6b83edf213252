// Correlations of images with their predictions on a grid of shifts (Eqs. 31-33).
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"     // for parallel_for
#include "tiltwise/body/correlation.hpp"  // for cc_term, add_folded, cc_row, cc_pair

#include <algorithm>  // for fill, max
#include <cstdio>     // for snprintf
#include <new>        // for bad_alloc
#include <vector>     // for vector

namespace tiltwise::host {

namespace {

/// What a thread works in.
struct Work {
  std::vector<body::CcFolded> folded;  // (limit + 1, limit + 1) ky, kx
  std::vector<float> even, odd;        // (limit + 1, 2 half + 1) ky, x
};

void fold(const CcTableArgs& a, std::int64_t i, std::vector<body::CcFolded>& folded) {
  std::fill(folded.begin(), folded.end(), body::CcFolded{});
  const float* weights = a.weights + a.rows[i] * a.k;
  double sums[cc_moments] = {};
  for (std::int64_t j = 0; j < a.k; ++j) {
    const std::int32_t kx = a.frequencies[2 * j], ky = a.frequencies[2 * j + 1];
    const body::CcTerm term =
        body::cc_term(a.slices[i * a.k + j], a.images[i * a.stride + j], a.powers[i * a.stride + j], weights[j]);
    const auto place = static_cast<std::size_t>((ky < 0 ? -ky : ky) * (a.limit + 1) + kx);
    body::add_folded(folded[place], term.cross, ky < 0 ? -1.0f : ky > 0 ? 1.0f : 0.0f);
    const auto energy = static_cast<double>(term.energy);
    sums[0] += energy;
    sums[1] += energy * kx * kx;
    sums[2] += energy * kx * ky;
    sums[3] += energy * ky * ky;
  }
  std::copy(sums, sums + cc_moments, a.moments + cc_moments * i);
}

void sum_rows(const CcTableArgs& a, Work& work) {
  const std::int64_t lines = a.limit + 1, shifts = a.half + 1, side = 2 * a.half + 1;
  for (std::int64_t ky = 0; ky < lines; ++ky) {
    float* even = work.even.data() + ky * side + a.half;
    float* odd = work.odd.data() + ky * side + a.half;
    for (std::int64_t d = 0; d < shifts; ++d) {
      float sums[4] = {};
      for (std::int64_t kx = 0; kx < lines; ++kx) {
        const body::CcFolded& f = work.folded[static_cast<std::size_t>(ky * lines + kx)];
        const float c = a.cosines[kx * shifts + d], s = a.sines[kx * shifts + d];
        sums[0] = mul_add(f.even.re, c, sums[0]);
        sums[1] = mul_add(f.even.im, s, sums[1]);
        sums[2] = mul_add(f.odd.re, s, sums[2]);
        sums[3] = mul_add(f.odd.im, c, sums[3]);
      }
      const auto row = body::cc_row(sums[0], sums[1], sums[2], sums[3]);
      even[d] = row.even_plus;
      even[-d] = row.even_minus;
      odd[d] = row.odd_plus;
      odd[-d] = row.odd_minus;
    }
  }
}

void sum_columns(const CcTableArgs& a, const Work& work, float* table) {
  const std::int64_t shifts = a.half + 1, side = 2 * a.half + 1;
  for (std::int64_t d = 0; d < shifts; ++d) {
    for (std::int64_t x = 0; x < side; ++x) {
      float even = 0.0f, odd = 0.0f;
      for (std::int64_t ky = 0; ky <= a.limit; ++ky) {
        const auto place = static_cast<std::size_t>(ky * side + x);
        even = mul_add(work.even[place], a.cosines[ky * shifts + d], even);
        odd = mul_add(work.odd[place], a.sines[ky * shifts + d], odd);
      }
      const auto pair = body::cc_pair(even, odd);
      table[(a.half + d) * side + x] = pair.plus;
      table[(a.half - d) * side + x] = pair.minus;
    }
  }
}

}  // namespace

int cc_table(const CcTableArgs* args, ErrorText* error) {
  const CcTableArgs& a = *args;
  const auto lines = static_cast<std::size_t>(a.limit + 1), side = static_cast<std::size_t>(2 * a.half + 1);
  std::vector<Work> works;
  try {
    const Work work = {std::vector<body::CcFolded>(lines * lines), std::vector<float>(lines * side),
                       std::vector<float>(lines * side)};
    works.assign(static_cast<std::size_t>(std::max(a.threads, 1)), work);
  } catch (const std::bad_alloc&) {
    std::snprintf(error->text, sizeof error->text, "cc_table: not enough memory for %lld frequencies",
                  static_cast<long long>(a.k));
    return status_out_of_memory;
  }
  parallel_for(a.n, a.threads, [&](std::int64_t i, int thread) {
    Work& work = works[static_cast<std::size_t>(thread)];
    fold(a, i, work.folded);
    sum_rows(a, work);
    sum_columns(a, work, a.tables + i * static_cast<std::int64_t>(side * side));
  });
  return status_ok;
}

}  // namespace tiltwise::host
