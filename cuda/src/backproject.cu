// Posterior-weighted sums of one particle, per rotation (Eq. 11).
//
// A thread owns one component and several rotations: each shifted image is formed once per tile of
// rotations and used for all of them.
#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration

#include "tiltwise/body/maximise.hpp"  // for add_weighted
#include "tiltwise/body/residual.hpp"  // for shifted_image

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;
constexpr int tile_rotations = 16;
constexpr int tile_shifts = 32;

__global__ void __launch_bounds__(threads)
    backproject_kernel(const float* __restrict__ weights, const ComplexF* __restrict__ image,
                       const float* __restrict__ power, const ComplexF* __restrict__ phases,
                       ComplexF* __restrict__ sums, float* __restrict__ totals, long long n_rotations,
                       long long n_shifts, long long k) {
  TW_SHARED(float[tile_rotations][tile_shifts], weight_tile);
  TW_SHARED(double[tile_rotations], total);
  TW_SHARED(int[tile_shifts], is_used);
  const int thread = static_cast<int>(threadIdx.x);
  const long long component = static_cast<long long>(blockIdx.x) * threads + thread;
  const bool has_component = component < k;
  const ComplexF pixel = has_component ? image[component] : ComplexF{0.0f, 0.0f};

  for (long long first = static_cast<long long>(blockIdx.y) * tile_rotations; first < n_rotations;
       first += static_cast<long long>(gridDim.y) * tile_rotations) {
    ComplexF sum[tile_rotations] = {};
    if (thread < tile_rotations) {
      total[thread] = 0.0;
    }
    __syncthreads();
    for (long long first_shift = 0; first_shift < n_shifts; first_shift += tile_shifts) {
      for (int i = thread; i < tile_rotations * tile_shifts; i += threads) {
        const long long rotation = first + i / tile_shifts, shift = first_shift + i % tile_shifts;
        const bool valid = rotation < n_rotations && shift < n_shifts;
        weight_tile[i / tile_shifts][i % tile_shifts] = valid ? weights[rotation * n_shifts + shift] : 0.0f;
      }
      __syncthreads();
      if (thread < tile_rotations) {
        for (int t = 0; t < tile_shifts; ++t) {
          total[thread] += static_cast<double>(weight_tile[thread][t]);
        }
      } else if (thread >= 32 && thread < 32 + tile_shifts) {
        int used = 0;
        for (int r = 0; r < tile_rotations; ++r) {
          used |= weight_tile[r][thread - 32] != 0.0f ? 1 : 0;
        }
        is_used[thread - 32] = used;
      }
      __syncthreads();
      for (int t = 0; t < tile_shifts; ++t) {
        if (is_used[t] == 0 || !has_component) {
          continue;  // most poses: outside the significant set, or beyond the last shift
        }
        const ComplexF shifted = body::shifted_image(pixel, phases[(first_shift + t) * k + component]);
#pragma unroll
        for (int r = 0; r < tile_rotations; ++r) {
          sum[r] = body::add_weighted(sum[r], weight_tile[r][t], shifted);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < tile_rotations; ++r) {
      if (has_component && first + r < n_rotations) {
        sums[(first + r) * k + component] = sum[r];
        totals[(first + r) * k + component] = static_cast<float>(total[r] * static_cast<double>(power[component]));
      }
    }
    __syncthreads();
  }
}

}  // namespace

int backproject(const BackprojectArgs* args, ErrorText* error) {
  return guarded("backproject", error, [args] {
    const BackprojectArgs& a = *args;
    if (a.n_rotations == 0 || a.k == 0) {
      return;
    }
    const Stream stream;
    const Buffer<float> weights(a.weights, a.n_rotations * a.n_shifts, stream);
    const Buffer<ComplexF> image(a.image, a.k, stream);
    const Buffer<float> power(a.power, a.k, stream);
    const Buffer<ComplexF> phases(a.phases, a.n_shifts * a.k, stream);
    Buffer<ComplexF> sums(a.n_rotations * a.k);
    Buffer<float> totals(a.n_rotations * a.k);
    const dim3 grid(blocks_for(a.k, threads), rows_for((a.n_rotations + tile_rotations - 1) / tile_rotations));
    TW_LAUNCH(backproject_kernel, grid, dim3(threads), 0, stream, weights.get(), image.get(), power.get(), phases.get(),
              sums.get(), totals.get(), a.n_rotations, a.n_shifts, a.k);
    TW_CHECK(cudaGetLastError());
    sums.download(a.sums, stream);
    totals.download(a.totals, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
