// Value, gradient and curvature of the likelihood of single images (Eq. 4): one block per image.
//
// A thread adds every 128th component in a fixed order, then the block adds its threads: no atomics, the same bytes
// in every run.
#include "tiltwise/body/curvature.hpp"  // for interpolate_with_gradient, add_curvature
#include "tiltwise/body/phase.hpp"      // for unit_phase

#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

template <int axes>
__global__ void __launch_bounds__(threads)
    curvature_kernel(const ComplexF* __restrict__ volume, const float* __restrict__ matrices,
                     const float* __restrict__ frequencies, const ComplexF* __restrict__ images,
                     const float* __restrict__ powers, const int* __restrict__ rows, const float* __restrict__ slopes,
                     double* __restrict__ out, int size, long long k, long long stride, float radius_squared) {
  const long long i = blockIdx.x, row = rows[i] * stride;
  const float* matrix = matrices + 9 * i;
  constexpr int terms = curvature_terms<axes>;
  float slope[axes];
  for (int c = 0; c < axes; ++c) {
    slope[c] = slopes[axes * i + c];
  }
  // Short sums: a thread adds k / 128 components, single precision is enough.
  float sums[terms] = {};
  for (long long j = threadIdx.x; j < k; j += threads) {
    const float* f = frequencies + 3 * j;
    const body::GridSample s = body::grid_sample(body::sample_point(matrix, f), radius_squared, size);
    if (!s.inside) {
      continue;
    }
    const body::ValueAndGradient v = body::interpolate_with_gradient(volume, s, size);
    float gre[3], gim[3];
    for (int c = 0; c < 3; ++c) {  // g = M^T grad V
      gre[c] = matrix[c] * v.dx.re + matrix[3 + c] * v.dy.re + matrix[6 + c] * v.dz.re;
      gim[c] = matrix[c] * v.dx.im + matrix[3 + c] * v.dy.im + matrix[6 + c] * v.dz.im;
    }
    const ComplexF y = multiply(images[row + j], body::unit_phase(body::phase_slope<axes>(f[0], f[1], f[2], slope)));
    body::add_curvature<axes, float>(sums, v.value.re, v.value.im, gre, gim, f[0], f[1], f[2], y.re, y.im,
                                     powers[row + j]);
  }
#pragma unroll
  for (int t = 0; t < terms; ++t) {
    const double sum = block_sum<threads>(static_cast<double>(sums[t]));
    if (threadIdx.x == 0) {
      out[i * terms + t] = sum;
    }
  }
}

}  // namespace

int curvature(const CurvatureArgs* args, ErrorText* error) {
  return guarded("curvature", error, [args] {
    const CurvatureArgs& a = *args;
    if (a.n == 0) {
      return;
    }
    const Stream stream;
    const Buffer<ComplexF> volume(a.volume, a.size * a.size * (a.size / 2 + 1), stream);
    const Buffer<float> matrices(a.matrices, 9 * a.n, stream);
    const Buffer<float> frequencies(a.frequencies, 3 * a.k, stream);
    const Buffer<ComplexF> images(a.images, a.m * a.stride, stream);
    const Buffer<float> powers(a.powers, a.m * a.stride, stream);
    const Buffer<int> rows(a.rows, a.n, stream);
    const Buffer<float> slopes(a.slopes, a.axes * a.n, stream);
    Buffer<double> out(a.n * (a.axes == 3 ? curvature_terms<3> : curvature_terms<2>));
    TW_LAUNCH((a.axes == 3 ? curvature_kernel<3> : curvature_kernel<2>), dim3(blocks_for(a.n, 1)), dim3(threads), 0,
              stream, volume.get(), matrices.get(), frequencies.get(), images.get(), powers.get(), rows.get(),
              slopes.get(), out.get(), static_cast<int>(a.size), a.k, a.stride,
              static_cast<float>(a.radius * a.radius));
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
