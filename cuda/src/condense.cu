// Condensed evidence about CTF phases (Eqs. 23-26): one thread per pixel and group, which adds its images in their
// order, so that results have the same bytes in every run.
#include "tiltwise/body/phasefit.hpp"  // for add_condensed, ctf_wave
#include "tiltwise/body/slice.hpp"     // for grid_sample, interpolate

#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads)
    condense_kernel(const ComplexF* __restrict__ volume, const float* __restrict__ matrices,
                    const float* __restrict__ frequencies, const ComplexF* __restrict__ images,
                    const float* __restrict__ depths, const int* __restrict__ starts, const float* __restrict__ turns,
                    const float* __restrict__ slopes, double* __restrict__ out, int size, long long k, long long groups,
                    float radius_squared) {
  const long long j = static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (j >= k) {
    return;
  }
  for (long long g = blockIdx.y; g < groups; g += gridDim.y) {
    double sums[condensed_terms];
    double* const place = out + g * condensed_terms * k + j;
#pragma unroll
    for (int t = 0; t < condensed_terms; ++t) {
      sums[t] = place[t * k];
    }
    for (int i = starts[g]; i < starts[g + 1]; ++i) {
      const Vec3 p = body::sample_point(matrices + 9ll * i, frequencies + 3 * j);
      const body::GridSample s = body::grid_sample(p, radius_squared, size);
      const ComplexF v = s.inside ? body::interpolate(volume, s, size) : ComplexF{0.0f, 0.0f};
      body::add_condensed(sums, 1, v, images[i * k + j], body::ctf_wave(turns[g * k + j], slopes[j], depths[i]));
    }
#pragma unroll
    for (int t = 0; t < condensed_terms; ++t) {
      place[t * k] = sums[t];
    }
  }
}

}  // namespace

int condense(const CondenseArgs* args, ErrorText* error) {
  return guarded("condense", error, [args] {
    const CondenseArgs& a = *args;
    if (a.groups == 0 || a.n == 0 || a.k == 0) {
      return;
    }
    const Stream stream;
    const Buffer<ComplexF> volume(a.volume, a.size * a.size * (a.size / 2 + 1), stream);
    const Buffer<float> matrices(a.matrices, 9 * a.n, stream);
    const Buffer<float> frequencies(a.frequencies, 3 * a.k, stream);
    const Buffer<ComplexF> images(a.images, a.n * a.k, stream);
    const Buffer<float> depths(a.depths, a.n, stream);
    const Buffer<int> starts(a.starts, a.groups + 1, stream);
    const Buffer<float> turns(a.turns, a.groups * a.k, stream);
    const Buffer<float> slopes(a.slopes, a.k, stream);
    Buffer<double> out(a.groups * condensed_terms * a.k);
    out.upload(a.out, stream);
    TW_LAUNCH(condense_kernel, dim3(blocks_for(a.k, threads), rows_for(a.groups)), dim3(threads), 0, stream,
              volume.get(), matrices.get(), frequencies.get(), images.get(), depths.get(), starts.get(), turns.get(),
              slopes.get(), out.get(), static_cast<int>(a.size), a.k, a.groups,
              static_cast<float>(a.radius * a.radius));
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
