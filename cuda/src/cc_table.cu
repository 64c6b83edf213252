// Correlations of images with their predictions on a grid of shifts (Eqs. 31-33): components are folded, then summed
// over kx, then over ky.  Every number is a sum of one thread or of one block in a fixed order: the same bytes in every
// run.
#include "tiltwise/body/correlation.hpp"  // for cc_term, add_folded, cc_row, cc_pair

#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

#include <vector>  // for vector

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

/// One block per image; a thread gathers every 128th cell of (ky, kx).  `places` (lines, lines, 2) are the components
/// (kx, ky) and (kx, -ky) of a cell, -1 where there is none.
__global__ void __launch_bounds__(threads)
    cc_fold_kernel(const ComplexF* __restrict__ slices, const ComplexF* __restrict__ images,
                   const float* __restrict__ powers, const float* __restrict__ weights, const int* __restrict__ rows,
                   const int* __restrict__ places, body::CcFolded* __restrict__ folded, double* __restrict__ moments,
                   long long n, long long k, long long stride, int lines) {
  const int cells = lines * lines;
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    const float* weight = weights + rows[i] * k;
    double sums[cc_moments] = {};
    for (int cell = threadIdx.x; cell < cells; cell += threads) {
      body::CcFolded found = {};
      const double kx = cell % lines, ky = cell / lines;
      for (int part = 0; part < 2; ++part) {
        const int j = places[2 * cell + part];
        if (j < 0) {
          continue;
        }
        const body::CcTerm term =
            body::cc_term(slices[i * k + j], images[i * stride + j], powers[i * stride + j], weight[j]);
        const float side = cell < lines ? 0.0f : part == 0 ? 1.0f : -1.0f;
        body::add_folded(found, term.cross, side);
        const double energy = term.energy;
        sums[0] += energy;
        sums[1] += energy * kx * kx;
        sums[2] += energy * kx * (part == 0 ? ky : -ky);
        sums[3] += energy * ky * ky;
      }
      folded[i * cells + cell] = found;
    }
    for (int t = 0; t < cc_moments; ++t) {
      const double sum = block_sum<threads>(sums[t]);
      if (threadIdx.x == 0) {
        moments[cc_moments * i + t] = sum;
      }
    }
  }
}

/// Sums over kx: a thread makes one ky at shifts +d and -d.  `even` and `odd` are (n, lines, 2 half + 1).
__global__ void __launch_bounds__(threads)
    cc_rows_kernel(const body::CcFolded* __restrict__ folded, const float* __restrict__ cosines,
                   const float* __restrict__ sines, float* __restrict__ even, float* __restrict__ odd, long long n,
                   int lines, int half) {
  const int shifts = half + 1, side = 2 * half + 1;
  const int cell = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
  if (cell >= lines * shifts) {
    return;
  }
  const int ky = cell / shifts, d = cell % shifts;
  for (long long i = blockIdx.y; i < n; i += gridDim.y) {
    const body::CcFolded* row = folded + (i * lines + ky) * lines;
    float even_re = 0.0f, even_im = 0.0f, odd_re = 0.0f, odd_im = 0.0f;
    for (int kx = 0; kx < lines; ++kx) {
      const body::CcFolded f = row[kx];
      const float c = cosines[kx * shifts + d], s = sines[kx * shifts + d];
      even_re = mul_add(f.even.re, c, even_re);
      even_im = mul_add(f.even.im, s, even_im);
      odd_re = mul_add(f.odd.re, s, odd_re);
      odd_im = mul_add(f.odd.im, c, odd_im);
    }
    const auto found = body::cc_row(even_re, even_im, odd_re, odd_im);
    const long long middle = (i * lines + ky) * side + half;
    // the same number where d is 0
    even[middle - d] = found.even_minus;
    even[middle + d] = found.even_plus;
    odd[middle - d] = found.odd_minus;
    odd[middle + d] = found.odd_plus;
  }
}

/// Sums over ky: a thread makes one x at shifts +d and -d of y.
__global__ void __launch_bounds__(threads)
    cc_columns_kernel(const float* __restrict__ even, const float* __restrict__ odd, const float* __restrict__ cosines,
                      const float* __restrict__ sines, float* __restrict__ tables, long long n, int lines, int half) {
  const int shifts = half + 1, side = 2 * half + 1;
  const int cell = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
  if (cell >= side * shifts) {
    return;
  }
  const int d = cell / side, x = cell % side;
  for (long long i = blockIdx.y; i < n; i += gridDim.y) {
    float even_sum = 0.0f, odd_sum = 0.0f;
    const float *from_even = even + i * lines * side + x, *from_odd = odd + i * lines * side + x;
    const float *cosine = cosines + d, *sine = sines + d;
    for (int ky = 0; ky < lines; ++ky) {
      even_sum = mul_add(*from_even, *cosine, even_sum);
      odd_sum = mul_add(*from_odd, *sine, odd_sum);
      from_even += side;
      from_odd += side;
      cosine += shifts;
      sine += shifts;
    }
    const auto pair = body::cc_pair(even_sum, odd_sum);
    float* const table = tables + i * side * side;
    table[(half - d) * side + x] = pair.minus;
    table[(half + d) * side + x] = pair.plus;
  }
}

/// Components of every cell, see cc_fold_kernel.
std::vector<int> places_of(const CcTableArgs& a) {
  const std::int64_t lines = a.limit + 1;
  std::vector<int> places(static_cast<std::size_t>(2 * lines * lines), -1);
  for (std::int64_t j = 0; j < a.k; ++j) {
    const std::int64_t kx = a.frequencies[2 * j], ky = a.frequencies[2 * j + 1];
    const std::int64_t cell = (ky < 0 ? -ky : ky) * lines + kx;
    places[static_cast<std::size_t>(2 * cell + (ky < 0 ? 1 : 0))] = static_cast<int>(j);
  }
  return places;
}

}  // namespace

int cc_table(const CcTableArgs* args, ErrorText* error) {
  return guarded("cc_table", error, [args] {
    const CcTableArgs& a = *args;
    if (a.n == 0) {
      return;
    }
    const std::int64_t lines = a.limit + 1, shifts = a.half + 1, side = 2 * a.half + 1;
    const std::vector<int> cells = places_of(a);
    const Stream stream;
    const Buffer<ComplexF> slices(a.slices, a.n * a.k, stream);
    const Buffer<ComplexF> images(a.images, a.n * a.stride, stream);
    const Buffer<float> powers(a.powers, a.n * a.stride, stream);
    const Buffer<float> weights(a.weights, a.m * a.k, stream);
    const Buffer<int> rows(a.rows, a.n, stream);
    const Buffer<int> places(cells.data(), 2 * lines * lines, stream);
    const Buffer<float> cosines(a.cosines, lines * shifts, stream);
    const Buffer<float> sines(a.sines, lines * shifts, stream);
    Buffer<body::CcFolded> folded(a.n * lines * lines);
    Buffer<float> even(a.n * lines * side), odd(a.n * lines * side);
    Buffer<float> tables(a.n * side * side);
    Buffer<double> moments(a.n * cc_moments);
    const auto n_lines = static_cast<int>(lines), half = static_cast<int>(a.half);
    TW_LAUNCH(cc_fold_kernel, dim3(strided_blocks_for(a.n, 1)), dim3(threads), 0, stream, slices.get(), images.get(),
              powers.get(), weights.get(), rows.get(), places.get(), folded.get(), moments.get(), a.n, a.k, a.stride,
              n_lines);
    TW_CHECK(cudaGetLastError());
    TW_LAUNCH(cc_rows_kernel, dim3(blocks_for(lines * shifts, threads), rows_for(a.n)), dim3(threads), 0, stream,
              folded.get(), cosines.get(), sines.get(), even.get(), odd.get(), a.n, n_lines, half);
    TW_CHECK(cudaGetLastError());
    TW_LAUNCH(cc_columns_kernel, dim3(blocks_for(side * shifts, threads), rows_for(a.n)), dim3(threads), 0, stream,
              even.get(), odd.get(), cosines.get(), sines.get(), tables.get(), a.n, n_lines, half);
    TW_CHECK(cudaGetLastError());
    tables.download(a.tables, stream);
    moments.download(a.moments, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
