// Sums over a block in a fixed order, so that results have the same bytes in every run.
#pragma once

#include "launch.hpp"  // for TW_SHARED

namespace tiltwise::cuda {

/// Sum over the warp, valid in lane 0.
__device__ inline double warp_sum(double value) {
  for (unsigned delta = 16; delta > 0; delta /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, delta);
  }
  return value;
}

/// Sum over a one-dimensional block of Threads threads, valid in thread 0.  All threads must call.
template <unsigned Threads>
__device__ double block_sum(double value) {
  static_assert(Threads % 32 == 0 && Threads <= 1024, "whole warps");
  TW_SHARED(double[Threads / 32], of_warp);
  value = warp_sum(value);
  __syncthreads();  // the array may still be read by an earlier call
  if (threadIdx.x % 32 == 0) {
    of_warp[threadIdx.x / 32] = value;
  }
  __syncthreads();
  double sum = 0.0;
  if (threadIdx.x == 0) {
    for (unsigned warp = 0; warp < Threads / 32; ++warp) {
      sum += of_warp[warp];
    }
  }
  return sum;
}

}  // namespace tiltwise::cuda
