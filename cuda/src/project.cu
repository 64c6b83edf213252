// Slices of a volume (Eqs. 3, 6): one thread per sample.
#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration

#include "tiltwise/body/slice.hpp"  // for grid_sample, interpolate

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads)
    project_kernel(const ComplexF* __restrict__ volume, const float* __restrict__ matrices,
                   const float* __restrict__ frequencies, ComplexF* __restrict__ out, int size, long long n,
                   long long k, float radius_squared) {
  const long long j = static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (j >= k) {
    return;
  }
  for (long long i = blockIdx.y; i < n; i += gridDim.y) {
    const Vec3 p = body::sample_point(matrices + 9 * i, frequencies + 3 * j);
    const body::GridSample s = body::grid_sample(p, radius_squared, size);
    out[i * k + j] = s.inside ? body::interpolate(volume, s, size) : ComplexF{0.0f, 0.0f};
  }
}

}  // namespace

int project(const ProjectArgs* args, ErrorText* error) {
  return guarded("project", error, [args] {
    const ProjectArgs& a = *args;
    if (a.n == 0 || a.k == 0) {
      return;
    }
    const Stream stream;
    const Buffer<ComplexF> volume(a.volume, a.size * a.size * (a.size / 2 + 1), stream);
    const Buffer<float> matrices(a.matrices, 9 * a.n, stream);
    const Buffer<float> frequencies(a.frequencies, 3 * a.k, stream);
    Buffer<ComplexF> out(a.n * a.k);
    TW_LAUNCH(project_kernel, dim3(blocks_for(a.k, threads), rows_for(a.n)), dim3(threads), 0, stream, volume.get(),
              matrices.get(), frequencies.get(), out.get(), static_cast<int>(a.size), a.n, a.k,
              static_cast<float>(a.radius * a.radius));
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
